package migrate

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseTOML reads the part of TOML that oauth2-proxy's file uses: keys with
// text, numbers, truth values and lists of texts, comments, and no tables. The
// result is the tree that the same file would be in YAML.
func parseTOML(text []byte) (*yaml.Node, error) {
	if len(text) > maxSource {
		return nil, problem(0, "the file is larger than %d KiB", maxSource>>10)
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}
	p := &tomlParser{rest: string(text), line: 1}
	for {
		p.blank(true)
		if p.rest == "" {
			return root, plain(root, 0)
		}
		key, err := p.pair(root)
		if err != nil {
			return nil, err
		}
		p.blank(false)
		if p.rest != "" && p.rest[0] != '\n' {
			return nil, problem(p.line, "something follows the value of %s", key)
		}
	}
}

type tomlParser struct {
	rest string
	line int
}

// blank skips blanks and comments, and line ends if asked to.
func (p *tomlParser) blank(lines bool) {
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == ' ' || c == '\t' || c == '\r':
		case c == '\n' && lines:
			p.line++
		case c == '#':
			end := strings.IndexByte(p.rest, '\n')
			if end < 0 {
				end = len(p.rest)
			}
			p.rest = p.rest[end:]
			continue
		default:
			return
		}
		p.rest = p.rest[1:]
	}
}

// pair reads `key = value` into the tree.
func (p *tomlParser) pair(root *yaml.Node) (string, error) {
	end := 0
	for end < len(p.rest) && (p.rest[end] == '_' || p.rest[end] == '-' || 'a' <= p.rest[end]|0x20 && p.rest[end]|0x20 <= 'z' || '0' <= p.rest[end] && p.rest[end] <= '9') {
		end++
	}
	key := p.rest[:end]
	if key == "" {
		return "", problem(p.line, "write key = value; tables are not part of this file")
	}
	line := p.line
	p.rest = p.rest[end:]
	p.blank(false)
	if !strings.HasPrefix(p.rest, "=") {
		return "", problem(p.line, "there is no = behind %s", key)
	}
	p.rest = p.rest[1:]
	p.blank(false)
	value, err := p.value()
	if err != nil {
		return "", err
	}
	// The flags are written with hyphens, the file with underscores; both are met.
	key = strings.ReplaceAll(key, "-", "_")
	root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, Line: line}, value)
	return key, nil
}

func (p *tomlParser) value() (*yaml.Node, error) {
	line := p.line
	switch {
	case p.rest == "":
		return nil, problem(p.line, "a value is missing")
	case p.rest[0] == '[':
		return p.list()
	case p.rest[0] == '"' || p.rest[0] == '\'':
		text, err := p.quoted()
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Line: line}, err
	}
	end := strings.IndexAny(p.rest, " \t\r\n#,]")
	if end < 0 {
		end = len(p.rest)
	}
	word := p.rest[:end]
	if _, err := strconv.ParseFloat(word, 64); err != nil && word != "true" && word != "false" {
		return nil, problem(p.line, "%.40q is no value; put text in quotes", word)
	}
	p.rest = p.rest[end:]
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: word, Line: line}, nil
}

func (p *tomlParser) list() (*yaml.Node, error) {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: p.line}
	p.rest = p.rest[1:]
	for {
		p.blank(true)
		if strings.HasPrefix(p.rest, "]") {
			p.rest = p.rest[1:]
			return list, nil
		}
		if strings.HasPrefix(p.rest, "[") {
			return nil, problem(p.line, "a list in a list")
		}
		value, err := p.value()
		if err != nil {
			return nil, err
		}
		list.Content = append(list.Content, value)
		p.blank(true)
		if strings.HasPrefix(p.rest, ",") {
			p.rest = p.rest[1:]
		} else if !strings.HasPrefix(p.rest, "]") {
			return nil, problem(p.line, "the list is not closed")
		}
	}
}

// quoted reads a text of one line.
func (p *tomlParser) quoted() (string, error) {
	quote := p.rest[0]
	if strings.HasPrefix(p.rest, strings.Repeat(string(quote), 3)) {
		return "", problem(p.line, "texts of several lines are not read")
	}
	for i := 1; i < len(p.rest) && p.rest[i] != '\n'; i++ {
		switch {
		case p.rest[i] == '\\' && quote == '"':
			i++
		case p.rest[i] == quote:
			raw := p.rest[:i+1]
			p.rest = p.rest[i+1:]
			if quote == '\'' {
				return raw[1 : len(raw)-1], nil
			}
			text, err := strconv.Unquote(raw)
			if err != nil {
				return "", problem(p.line, "%.60s holds an escape that is not known", raw)
			}
			return text, nil
		}
	}
	return "", problem(p.line, "a quote is not closed")
}
