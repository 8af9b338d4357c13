package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// sample has every kind of field a section may have.
type sample struct {
	Name     string                  `yaml:"name"`
	On       bool                    `yaml:"on"`
	Count    int                     `yaml:"count"`
	List     []string                `yaml:"list"`
	Map      map[string]string       `yaml:"map"`
	Wait     access.Duration         `yaml:"wait"`
	Known    access.Tri              `yaml:"known"`
	Down     access.OnUnavailable    `yaml:"down"`
	Mode     access.Mode             `yaml:"mode"`
	Secret   access.Secret           `yaml:"secret"`
	Route    *access.Route           `yaml:"route"`
	Groups   map[string]access.Group `yaml:"groups"`
	Cert     string                  `yaml:"cert" doorward:"file"`
	Embedded `yaml:",inline"`
	hidden   string
	NotHere  string
}

type Embedded struct {
	Inner string `yaml:"inner"`
}

// decodeText decodes text as if it stood in a file in dir.
func decodeText(text, dir string, env map[string]string, into any) (*decoder, Problems) {
	root, problem := parse([]byte(text))
	if problem != nil {
		return nil, Problems{*problem}
	}
	d := &decoder{files: &fileReader{dir: dir, named: stamps{}, env: func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}}}
	d.decode(root, into)
	return d, d.problems.sort()
}

// brief writes problems one per line, as "line:col path: text | cure".
func brief(problems Problems) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%d:%d %s: %s | %s\n", p.Line, p.Column, p.Path, p.Text, p.Cure)
	}
	return strings.TrimSpace(b.String())
}

func TestDecodeFillsEveryKindOfField(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tls.crt"), "x")
	write(t, filepath.Join(dir, "key"), "s3cret\n")
	var got sample
	d, problems := decodeText(`
name: a
on: true
count: 8
list: [x, "2"]
map: {macos: "15.10"}
wait: 30d
known: true
down: deny
mode: report
secret: {file: key}
route: {id: r, require: {device: healthy}, allow: [{name: x, claims: {dept: [a, b]}}]}
groups: {eng.core: {provider: corp, claim_groups: [eng]}}
cert: tls.crt
inner: y
`, dir, nil, &got)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got.Name != "a" || !got.On || got.Count != 8 || got.List[1] != "2" || got.Map["macos"] != "15.10" || got.Inner != "y" {
		t.Errorf("simple fields: %+v", got)
	}
	if got.Wait.Std().Hours() != 720 || got.Known != access.Yes || got.Mode != access.Report {
		t.Errorf("texts: %+v", got)
	}
	if got.Secret.Reveal() != "s3cret" || got.Secret.File != filepath.Join(dir, "key") || got.Cert != filepath.Join(dir, "tls.crt") {
		t.Errorf("secret and file: %q %q %q", got.Secret.Reveal(), got.Secret.File, got.Cert)
	}
	if got.Route.Require.Device != "healthy" || got.Route.Allow[0].Claims["dept"][1] != "b" || got.Groups["eng.core"].ClaimGroups[0] != "eng" {
		t.Errorf("nested: %+v %+v", got.Route, got.Groups)
	}
	for path, want := range map[string]position{
		"":                              {2, 1},
		"route.allow[0].claims.dept[1]": {12, 81},
		"route.allow[0].when":           {12, 52}, // not written: the rule itself
		"groups.eng.core.provider":      {13, 31},
		`groups["eng.core"].provider`:   {13, 31},
		"groups[eng.core].claim_groups": {13, 51},
		"missing.altogether[3]":         {2, 1},
	} {
		if at := d.where.find(path); at != want {
			t.Errorf("%s is at %v, want %v", path, at, want)
		}
	}
	if want := []string{filepath.Join(dir, "key"), filepath.Join(dir, "tls.crt")}; !slices.Equal(slices.Sorted(maps.Keys(d.files.named)), want) {
		t.Errorf("named files: %v", d.files.named)
	}
}

func TestStructReadsAWordOrAMapping(t *testing.T) {
	var got sample
	if _, problems := decodeText("down: {use_last_known: 1h}", "", nil, &got); len(problems) > 0 || got.Down.UseLastKnown.Std().Hours() != 1 {
		t.Errorf("%v %v", got.Down, problems)
	}
	_, problems := decodeText("down: allow", "", nil, &got)
	if want := `1:7 down: "allow" is neither deny nor {use_last_known: DURATION} | `; brief(problems)+" " != want {
		t.Errorf("got %q", brief(problems))
	}
}

func TestDecodeFaults(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), "\n")
	write(t, filepath.Join(dir, "large"), strings.Repeat("x", maxSecret+1))
	env := map[string]string{"EMPTY": ""}
	for _, test := range []struct{ name, text, want string }{
		{"unknown key", "naem: x", `1:1 naem: unknown key "naem" | did you mean name?`},
		{"unknown key in another style", "Route: {preserveHost: true}\nroute: {preserveHost: true}", "1:1 Route: unknown key \"Route\" | did you mean route?\n2:9 route.preserveHost: unknown key \"preserveHost\" | did you mean preserve_host?"},
		{"unknown key without likeness", "secret: {vault: x}", `1:10 secret.vault: unknown key "vault" | valid here: env, file`},
		{"key of another section", "preserve_host: true", `1:1 preserve_host: unknown key "preserve_host" | it belongs to route`},
		{"go field name is no key", "NotHere: x", `1:1 NotHere: unknown key "NotHere" | valid here: cert, count, down, groups, inner, known, list, map, mode, name, on, route, secret, wait`},
		{"mapping for a list", "route:\n  allow:\n    name: x", `3:5 route.allow: must be a list, this is a mapping | start each entry with ` + "`- `"},
		{"word for a list", "list: eng", `1:7 list: must be a list, this is text: "eng" | write [eng]`},
		{"list for a mapping", "route: [a]", `1:8 route: must be a mapping, this is a list | write {id: …}`},
		{"list for a map", "groups: [a]", `1:9 groups: must be a mapping, this is a list | write {name: …}`},
		{"number for text", "map: {macos: 15.10}", `1:14 map.macos: must be text, this is a number: "15.10" | put it in quotes: "15.10"`},
		{"truth for text", "name: true", `1:7 name: must be text, this is a truth value: "true" | put it in quotes: "true"`},
		{"list for text", "name: [a]", `1:7 name: must be text, this is a list | write a without the list`},
		{"word for truth", "on: yes", `1:5 on: must be true or false, this is text: "yes" | write true or false`},
		{"text for a number", `count: "8"`, `1:8 count: must be a whole number, this is text: "8" | write digits only, such as 8`},
		{"fraction for a number", "count: 1.5", `1:8 count: must be a whole number, this is a number: "1.5" | write digits only, such as 8`},
		{"huge number", "count: 99999999999", `1:8 count: must be a whole number, this is a number: "99999999999" | write digits only, such as 8`},
		{"hexadecimal number", "count: 0x10", `1:8 count: must be a whole number, this is a number: "0x10" | write digits only, such as 8`},
		{"bad duration", "wait: soon", `1:7 wait: "soon" is not a duration: write 30d, 10h, 15m or 1h30m |`},
		{"mapping for a duration", "wait: {a: b}", `1:7 wait: must be one value, this is a mapping |`},
		{"no value", "name:\non: true", `1:6 name: there is no value | give it a value or remove the key`},
		{"no entries", "route:\n  deny:\n  #- {name: x}\n", `2:8 route.deny: there is no value | give it a value or remove the key`},
		{"duplicate key", "name: a\nname: b", `2:1 name: name is written twice, the first time in line 1 | keep one of them`},
		{"duplicate name", "groups: {a: {}, a: {}}", `1:17 groups.a: a is written twice, the first time in line 1 | keep one of them`},
		{"empty name", `groups: {"": {}}`, `1:10 groups.: the name is empty | give it a name`},
		{"list as key", "? [a]\n: b", "1:3 : a key must be a plain word | write `key: value`"},
		{"tag", "name: !!str 5", `1:7 name: the tag !!str has no use here | remove the tag`},
		{"local tag", "secret: !vault x", `1:9 secret: the tag !vault has no use here | remove the tag`},
		{"anchor and alias", "name: &a x\ninner: *a", "1:7 name: the anchor &a has no use here | " + noAliases + "\n2:8 inner: the alias *a is not followed here | " + noAliases},
		{"merge key", "<<: {name: x}", `1:1 : the merge key << is not followed here | ` + noAliases},
		{"secret in the file", "secret: hunter2", `1:9 secret: a secret may not stand in the configuration | move the secret into a file of its own and write {file: PATH}, or {env: NAME}; then replace it, since it was readable here`},
		{"secret from two sources", "secret: {file: a, env: B}", `1:9 secret: a secret has exactly one source, a file or an environment variable | write {file: PATH} or {env: NAME}`},
		{"secret from no source", "secret: {}", `1:9 secret: a secret has exactly one source, a file or an environment variable | write {file: PATH} or {env: NAME}`},
		{"secret file missing", "secret: {file: gone}", `1:16 secret: the secret file DIR/gone cannot be read: no such file or directory | relative paths start at the directory of the configuration file; is the file mounted?`},
		{"secret file empty", "secret: {file: empty}", `1:16 secret: the secret file DIR/empty is empty | put the secret there`},
		{"secret file large", "secret: {file: large}", `1:16 secret: the secret file DIR/large is larger than 64 KiB |`},
		{"secret file is a folder", "secret: {file: .}", `1:16 secret: the secret file DIR cannot be read: it is not a file | name a regular file`},
		{"secret file is a device that never ends", "secret: {file: /dev/zero}", `1:16 secret: the secret file /dev/zero cannot be read: it is not a file | name a regular file`},
		{"secret variable unset", "secret: {env: GONE}", `1:15 secret: the environment variable GONE is not set | set it where doorward is started`},
		{"secret variable empty", "secret: {env: EMPTY}", `1:15 secret: the environment variable EMPTY is empty | put the secret there`},
		{"named file missing", "cert: gone.crt", `1:7 cert: the file DIR/gone.crt cannot be read: no such file or directory | relative paths start at the directory of the configuration file; is the file mounted?`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problems := decodeText(test.text, dir, env, new(sample))
			if got := strings.ReplaceAll(brief(problems), dir, "DIR"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestSecretNeverShowsInAProblem(t *testing.T) {
	for _, text := range []string{"secret: hunter2", "secret: [hunter2]", "secret: !x hunter2", "secret: {value: hunter2}", "secret: 1234hunter2"} {
		_, problems := decodeText(text, t.TempDir(), nil, new(sample))
		if len(problems) == 0 || strings.Contains(problems.Error(), "hunter2") {
			t.Errorf("%s: %v", text, problems)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
