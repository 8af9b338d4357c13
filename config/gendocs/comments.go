package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/doorward/doorward/config"
)

const module = "github.com/doorward/doorward/"

// comments reads what the authors of the sections wrote above their fields.
type comments struct {
	root string
	// fields maps "package.Type.Field" to the comment, types "package.Type".
	fields, types map[string]string
	// values maps "package.Type" of a named string to its constants.
	values map[string][]string
	parsed map[string]bool
}

func newComments(root string) *comments {
	return &comments{root, map[string]string{}, map[string]string{}, map[string][]string{}, map[string]bool{}}
}

// parse reads the package that declares a type, once.
func (c *comments) parse(pkg string) error {
	dir, ours := strings.CutPrefix(pkg, module)
	if !ours || c.parsed[pkg] {
		return nil
	}
	c.parsed[pkg] = true
	paths, err := filepath.Glob(filepath.Join(c.root, filepath.FromSlash(dir), "*.go"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if decl, ok := decl.(*ast.GenDecl); ok {
				c.declaration(pkg, decl)
			}
		}
	}
	return nil
}

func (c *comments) declaration(pkg string, decl *ast.GenDecl) {
	for _, spec := range decl.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			name := pkg + "." + spec.Name.Name
			doc := spec.Doc
			if doc == nil {
				doc = decl.Doc
			}
			c.types[name] = join(doc.Text())
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					for _, ident := range field.Names {
						c.fields[name+"."+ident.Name] = join(field.Doc.Text())
					}
				}
			}
		case *ast.ValueSpec:
			typ, ok := spec.Type.(*ast.Ident)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			for _, value := range spec.Values {
				if lit, ok := value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil && text != "" {
						name := pkg + "." + typ.Name
						c.values[name] = append(c.values[name], text)
					}
				}
			}
		}
	}
}

// join puts a wrapped comment on one line.
func join(comment string) string { return strings.Join(strings.Fields(comment), " ") }

// entry is the comment on one key, taken apart.
type entry struct {
	meaning  string
	fallback string // the default, if the comment names one
	required bool
}

var (
	defaultSentence  = regexp.MustCompile(`(?:^|\. )Default:? (.+?)\.(?: |$)`)
	defaultRemark    = regexp.MustCompile("(`[^`]+`) \\((?:[^)]*, )?the default\\)")
	requiredSentence = regexp.MustCompile(`(^|\. )Required([.,:;])(?: (.)|$)`)
)

// entry returns the comment on a key as prose about the key, not about the Go
// field. A key without a comment is an error: the reference would be silent.
func (c *comments) entry(key config.Key) (entry, error) {
	if err := c.parse(key.Owner.PkgPath()); err != nil {
		return entry{}, err
	}
	text := c.fields[key.Owner.PkgPath()+"."+key.Owner.Name()+"."+key.Field.Name]
	if text == "" {
		return entry{}, fmt.Errorf("%s.%s has no comment", key.Owner, key.Field.Name)
	}
	var e entry
	if m := defaultSentence.FindStringSubmatch(text); m != nil {
		e.fallback = m[1]
		text = strings.TrimSpace(defaultSentence.ReplaceAllString(text, ". "))
	} else if m := defaultRemark.FindStringSubmatch(text); m != nil {
		e.fallback = m[1]
	}
	if m := requiredSentence.FindStringSubmatch(text); m != nil {
		// "Required, unique." and "Required: letters." go on after the word.
		e.required = true
		text = strings.TrimSpace(strings.Replace(text, m[0], m[1]+strings.ToUpper(m[3]), 1))
	}
	e.meaning = prose(strings.TrimPrefix(text, ". "), key)
	return e, nil
}

// prose turns "Listen is the address …" into "The address …" and names of other
// fields of the section into their keys.
func prose(text string, key config.Key) string {
	siblings := config.Keys(key.Owner)
	rest, ok := strings.CutPrefix(text, key.Field.Name+" ")
	if ok && !strings.HasPrefix(rest, "and ") && !strings.HasPrefix(rest, "or ") {
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, "is "), "are ")
		text = strings.ToUpper(rest[:1]) + rest[1:]
	} else if ok {
		text = "`" + key.Name + "` " + rest
	}
	slices.SortFunc(siblings, func(a, b config.Key) int { return len(b.Field.Name) - len(a.Field.Name) })
	for _, other := range siblings {
		// Only names that are no English word: ClientKey, but not From or WebSocket.
		if name := other.Field.Name; strings.Contains(other.Name, "_") {
			text = regexp.MustCompile(`\b`+name+`\b`).ReplaceAllString(text, "`"+other.Name+"`")
		}
	}
	return text
}

// about returns the first sentence of the comment on a type, without its name.
// What follows the first sentence is for readers of the code.
func (c *comments) about(t reflect.Type) (string, error) {
	if err := c.parse(t.PkgPath()); err != nil {
		return "", err
	}
	text, more, cut := strings.Cut(c.types[t.PkgPath()+"."+t.Name()], ". ")
	if cut && more != "" {
		text += "."
	}
	text = strings.TrimPrefix(text, t.Name()+" ")
	text = strings.TrimPrefix(strings.TrimPrefix(text, "is "), "are ")
	if text == "" {
		return "", fmt.Errorf("%s has no comment", t)
	}
	return strings.ToUpper(text[:1]) + text[1:], nil
}

// words returns the closed list of values of a named string type: its constants
// and the default, whose constant may be empty.
func (c *comments) words(t reflect.Type, e entry) ([]string, error) {
	if t.PkgPath() == "" || t.Kind() != reflect.String {
		return nil, nil
	}
	if err := c.parse(t.PkgPath()); err != nil {
		return nil, err
	}
	words := c.values[t.PkgPath()+"."+t.Name()]
	if word := strings.Trim(e.fallback, "`"); len(words) > 0 && word != "" && !slices.Contains(words, word) {
		words = append([]string{word}, words...)
	}
	return words, nil
}
