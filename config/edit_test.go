package config

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

const editable = `# The wiki belongs to Alice.
routes:
  - id: wiki   # ours
    allow:
      # everybody
      - {name: staff, groups: [dev, "ops", sales], methods: [GET]} # for reading

      # the people of the migration
      - name: legacy
        groups: # in this order
          - old   # gone soon
          - older
        when: >-
          user.email != ''
          && true
      - name: 'last one'
        any_user: true # for now
  - {id: pay, allow: [{name: a, groups: [x]}, {name: b, groups: [y]}, {name: c, groups: [z]}]}
  # nobody knows
  - id: old
    allow: [{name: x, groups: [a]}]
tail: 1
`

// What a person would have typed is what comes out, and nothing else is touched.
func TestEdit(t *testing.T) {
	for _, c := range []struct {
		name  string
		edits []EntryEdit
		old   string // of editable
		new   string
	}{
		{"drop from a flow list", []EntryEdit{{Path: "routes[0].allow[0]", Keys: []KeyEdit{{Key: "groups", Drop: []int{1}}}}}, `[dev, "ops", sales]`, `[dev, sales]`},
		{"drop the first", []EntryEdit{{Path: "routes[0].allow[0]", Keys: []KeyEdit{{Key: "groups", Drop: []int{0}}}}}, `[dev, "ops", sales]`, `["ops", sales]`},
		{"drop the last two", []EntryEdit{{Path: "routes[0].allow[0]", Keys: []KeyEdit{{Key: "groups", Drop: []int{2, 1}}}}}, `[dev, "ops", sales]`, `[dev]`},
		{"drop a line", []EntryEdit{{Path: "routes[0].allow[1]", Keys: []KeyEdit{{Key: "groups", Drop: []int{0}}}}}, "          - old   # gone soon\n", ""},
		{"set", []EntryEdit{{Path: "routes[0].allow[0]", Keys: []KeyEdit{{Key: "methods", Value: "[GET, HEAD]"}}}}, "methods: [GET]", "methods: [GET, HEAD]"},
		{"add to a flow mapping", []EntryEdit{{Path: "routes[0].allow[0]", Keys: []KeyEdit{{Key: "paths", Value: `["/a/**"]`}}}}, "methods: [GET]}", `methods: [GET], paths: ["/a/**"]}`},
		{"add to a block mapping", []EntryEdit{{Path: "routes[0].allow[1]", Keys: []KeyEdit{{Key: "methods", Value: "[GET]"}}}}, "          && true\n", "          && true\n        methods: [GET]\n"},
		{"add before a comment", []EntryEdit{{Path: "routes[0].allow[2]", Keys: []KeyEdit{{Key: "methods", Value: "[GET]"}}}}, "true # for now\n", "true # for now\n        methods: [GET]\n"},
		{"in the place of a key", []EntryEdit{{Path: "routes[0].allow[2]", Keys: []KeyEdit{{Key: "groups", Value: "[dev]", Instead: "any_user"}}}}, "any_user: true # for now", "groups: [dev] # for now"},
		{"remove a key", []EntryEdit{{Path: "routes[0].allow[0]", Keys: []KeyEdit{{Key: "methods"}}}}, ", methods: [GET]}", "}"},
		{"remove the first key", []EntryEdit{{Path: "routes[0].allow[1]", Keys: []KeyEdit{{Key: "name"}}}}, "- name: legacy\n        groups", "- groups"},
		{"remove an entry with its comment", []EntryEdit{{Path: "routes[0].allow[1]", Remove: true}},
			editable[strings.Index(editable, "      # the people"):strings.Index(editable, "      - name: 'last")], ""},
		{"remove the first entry", []EntryEdit{{Path: "routes[0].allow[0]", Remove: true}}, "      - {name: staff, groups: [dev, \"ops\", sales], methods: [GET]} # for reading\n", ""},
		{"remove from a flow list", []EntryEdit{{Path: "routes[1].allow[0]", Remove: true}, {Path: "routes[1].allow[2]", Remove: true}}, "[{name: a, groups: [x]}, {name: b, groups: [y]}, {name: c, groups: [z]}]", "[{name: b, groups: [y]}]"},
		{"remove a route", []EntryEdit{{Path: "routes[2]", Remove: true}}, "  # nobody knows\n  - id: old\n    allow: [{name: x, groups: [a]}]\n", ""},
		{"remove all of a list", []EntryEdit{{Path: "routes[2].allow[0]", Remove: true}}, "    allow: [{name: x, groups: [a]}]\ntail", "tail"},
		{"a copy in a block list", []EntryEdit{{Path: "routes[0].allow[0]", Keys: []KeyEdit{{Key: "groups", Drop: []int{1, 2}}}, Copies: [][]KeyEdit{{{Key: "name", Value: "staff-read"}}}}},
			`groups: [dev, "ops", sales], methods: [GET]} # for reading` + "\n", `groups: [dev], methods: [GET]} # for reading` + "\n" + `      - {name: staff-read, groups: [dev, "ops", sales], methods: [GET]}` + "\n"},
		{"a copy of a block mapping", []EntryEdit{{Path: "routes[0].allow[2]", Copies: [][]KeyEdit{{{Key: "name", Value: "again"}}}}}, "any_user: true # for now\n", "any_user: true # for now\n      - name: again\n        any_user: true\n"},
		{"a copy in a flow list, beside a removal", []EntryEdit{{Path: "routes[1].allow[1]", Copies: [][]KeyEdit{{{Key: "name", Value: "d"}}}}, {Path: "routes[1].allow[2]", Remove: true}}, "{name: b, groups: [y]}, {name: c, groups: [z]}", "{name: b, groups: [y]}, {name: d, groups: [y]}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(editable, c.old) != 1 {
				t.Fatalf("%q is not in the text once", c.old)
			}
			want := strings.Replace(editable, c.old, c.new, 1)
			got, err := Edit([]byte(editable), c.edits)
			if err != nil || string(got) != want {
				t.Errorf("%v\n%s", err, Patch("wanted", []byte(want), got))
			}
		})
	}
}

func TestEditRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		edit EntryEdit
	}{
		"text over two lines": {"routes:\n  - {name: a\n    b, x: 1}\n", EntryEdit{Path: "routes[0]", Keys: []KeyEdit{{Key: "name", Value: "c"}}}},
		"no such entry":       {editable, EntryEdit{Path: "routes[7]", Remove: true}},
		"no such list":        {editable, EntryEdit{Path: "routes[0].deny[0]", Remove: true}},
		"no entry":            {editable, EntryEdit{Path: "routes", Remove: true}},
		"nothing left":        {editable, EntryEdit{Path: "routes[2].allow[0]", Keys: []KeyEdit{{Key: "groups", Drop: []int{0}}}}},
	} {
		if got, err := Edit([]byte(c.text), []EntryEdit{c.edit}); err == nil {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

// Random edits of a random file change what they should in the data and no
// comment elsewhere.
func TestEditedTextMeansWhatWasAsked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "rules")
		var b strings.Builder
		b.WriteString("routes:\n- id: a\n  allow:\n")
		for i := range n {
			name := string(rune('a' + i))
			switch rapid.IntRange(0, 3).Draw(t, "style") {
			case 0:
				b.WriteString("  - {name: " + name + ", groups: [x, y, z]} # c" + name + "\n")
			case 1:
				b.WriteString("  # above\n  - name: " + name + " # c" + name + "\n    groups: [x, 'y', \"z\"]\n\n")
			case 2:
				b.WriteString("  -   groups:\n      - x\n      - y # why\n      - z\n      name: " + name + " # c" + name + "\n")
			case 3:
				b.WriteString("  - {\n      name: " + name + ", # c" + name + "\n      groups: [x,\n        y, z],\n    }\n")
			}
		}
		var edits []EntryEdit
		want := map[string]string{}
		for i := range n {
			name, path := string(rune('a'+i)), "routes[0].allow["+string(rune('0'+i))+"]"
			switch rapid.IntRange(0, 3).Draw(t, "edit") {
			case 0:
				want[name] = "x y z"
			case 1:
				if i == 0 {
					want[name] = "x y z"
					continue
				}
				edits = append(edits, EntryEdit{Path: path, Remove: true})
			case 2:
				edits = append(edits, EntryEdit{Path: path, Keys: []KeyEdit{{Key: "groups", Drop: []int{1}}}})
				want[name] = "x z"
			case 3:
				edits = append(edits, EntryEdit{Path: path, Keys: []KeyEdit{{Key: "methods", Value: "[GET]"}}, Copies: [][]KeyEdit{{{Key: "name", Value: name + "2"}, {Key: "groups", Drop: []int{0, 2}}}}})
				want[name], want[name+"2"] = "x y z GET", "y"
			}
		}
		text, err := Edit([]byte(b.String()), edits)
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		var got struct {
			Routes []struct {
				ID    string
				Allow []struct {
					Name            string
					Groups, Methods []string
				}
			}
		}
		if err := yaml.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v\n%s\n%s", err, b.String(), text)
		}
		for _, r := range got.Routes[0].Allow {
			if have := strings.Join(append(r.Groups, r.Methods...), " "); want[r.Name] != have {
				t.Fatalf("%s has %s, want %s\n%s\n%s", r.Name, have, want[r.Name], b.String(), text)
			}
			delete(want, r.Name)
			if len(r.Name) == 1 && !strings.Contains(string(text), "# c"+r.Name) {
				t.Fatalf("a comment is gone\n%s\n%s", b.String(), text)
			}
		}
		if len(want) > 0 {
			t.Fatalf("missing: %v\n%s\n%s", want, b.String(), text)
		}
	})
}

// The tools people have take our patches.
func TestPatchApplies(t *testing.T) {
	tool, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	rapid.Check(t, func(r *rapid.T) {
		line := rapid.SampledFrom([]string{"a\n", "b\n", "c\n", "d\n", "e\n"})
		before := strings.Join(rapid.SliceOfN(line, 1, 30).Draw(r, "before"), "")
		after := strings.Join(rapid.SliceOfN(line, 1, 30).Draw(r, "after"), "")
		patch := Patch("f.yaml", []byte(before), []byte(after))
		if (patch == "") != (before == after) {
			r.Fatalf("%q", patch)
		}
		if got := applied(r, before, patch); got != after {
			r.Fatalf("%q by\n%s\nis %q, want %q", before, patch, got, after)
		}
	})
	dir := t.TempDir()
	before, after := "x\na\nb\nc\nd\nno newline", "x\na\nB\nc\nd\nno newline at all"
	if err := os.WriteFile(filepath.Join(dir, "f.yaml"), []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "apply", "-")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(Patch("f.yaml", []byte(before), []byte(after)))
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	out, err := cmd.CombinedOutput()
	if got, _ := os.ReadFile(filepath.Join(dir, "f.yaml")); err != nil || string(got) != after {
		t.Errorf("%v %s: %q", err, out, got)
	}
}

// applied follows a unified diff literally.
func applied(t *rapid.T, before, patch string) string {
	lines := splitLines([]byte(before))
	var out strings.Builder
	at := 0
	for _, line := range splitLines([]byte(patch)) {
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
		case line[0] == '@':
			var from, length int
			if _, err := fmt.Sscanf(line, "@@ -%d,%d", &from, &length); err != nil {
				t.Fatal(err)
			}
			if length > 0 {
				from--
			}
			for ; at < from; at++ {
				out.WriteString(lines[at])
			}
		case line[0] == '+':
			out.WriteString(line[1:])
		default:
			if lines[at] != line[1:] {
				t.Fatalf("line %d is %q, the patch says %q", at+1, lines[at], line)
			}
			if line[0] == ' ' {
				out.WriteString(lines[at])
			}
			at++
		}
	}
	return out.String() + strings.Join(lines[at:], "")
}
