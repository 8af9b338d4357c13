package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/doorward/doorward/"

// layers is the import order: a package may import packages of earlier lines
// only, never of its own line. A package that is not listed fails the test, so
// that a new one takes its place knowingly.
var layers = [][]string{
	{"internal/access", "internal/await", "internal/yield", "internal/fetch"},
	{"internal/page", "internal/store", "internal/testidp", "internal/clilogin", "internal/migrate", "internal/jose", "internal/tunnel", "internal/audit/format", "internal/h1", "internal/lane"},
	{"internal/store/storetest", "internal/store/redistest", "internal/store/lent", "internal/session", "internal/audit/send", "internal/issuance"},
	{"authn", "devicecheck", "authz", "internal/audit", "internal/telemetry", "internal/admin", "proxy", "signals"},
	{"config", "proxy/extauthz", "proxy/spoe"},
	{"config/gendocs", "internal/serve", "internal/history"},
	{"cmd/demo", "cmd/doorward"},
	{"e2e", "bench", "internal/arch"},
}

// only narrows what the layers alone would permit.
var only = map[string][]string{
	"internal/access":   {},
	"internal/page":     {"internal/access"},
	"internal/store":    {"internal/access"},
	"internal/testidp":  {"internal/access"},
	"internal/clilogin": {},
	"internal/migrate":  {"internal/access"},
	"internal/jose":     {"internal/access"},
	"internal/tunnel":   {"internal/access"},
	"internal/await":    {},
	"internal/yield":    {},
	"internal/fetch":    {},
	"internal/h1":       {"internal/yield"},
	"internal/lane":     {"internal/await", "internal/yield"},

	"internal/store/lent": {"internal/store"},

	"internal/audit/format": {},
	"internal/audit/send":   {"internal/access", "internal/audit/format"},

	"authz":              {"internal/access"},
	"devicecheck":        {"internal/access"},
	"internal/audit":     {"internal/access", "internal/audit/format", "internal/audit/send", "internal/yield"},
	"internal/telemetry": {"internal/access"},
	"internal/admin":     {"internal/access"},
	"proxy":              {"internal/access", "internal/page", "internal/store", "internal/tunnel", "internal/issuance", "internal/h1", "internal/await", "internal/yield", "internal/fetch"},
	"internal/issuance":  {"internal/access", "internal/store"},
	"proxy/extauthz":     {"internal/access", "proxy"},
	"proxy/spoe":         {"internal/access", "proxy"},
	"signals":            {"internal/access", "internal/store", "internal/session", "internal/jose"},
	"authn":              {"internal/access", "internal/page", "internal/store", "internal/session", "internal/jose"},
}

// fences lists who may import a dependency that the rest of the code should not
// depend on. A key matches the import path itself and everything below it.
var fences = map[string][]string{
	"cel.dev/cel-go":                      {"authz"},
	"github.com/coreos/go-oidc":           {"internal/jose"},
	"github.com/prometheus/client_golang": {"internal/telemetry"},
	"github.com/klauspost/compress":       {"internal/audit"},
	"github.com/redis/rueidis":            {"internal/store"},
	"github.com/spf13/cobra":              {"cmd/doorward"},
	"go.etcd.io/bbolt":                    {"internal/store"},
	"go.opentelemetry.io":                 {"internal/telemetry"},
	"github.com/envoyproxy":               {"proxy/extauthz"},
	"go.yaml.in/yaml/v3":                  {"config", "cmd/doorward", "internal/migrate"},
	"golang.org/x/crypto/acme":            {"internal/issuance"},
	"golang.org/x/oauth2":                 {"authn", "signals"},
	"google.golang.org/grpc":              {"proxy/extauthz"},
	"net/rpc":                             {"internal/store/lent", "internal/serve"},
	"net/http/pprof":                      {},
	"software.sslmate.com/src/go-pkcs12":  {"cmd/doorward"},
}

// source is one Go file of the module.
type source struct {
	path string // slash-separated, from the module root
	pkg  string // its folder
	test bool
	ast  *ast.File
	size int // lines
}

func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var list []source
	err = filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() {
			if name == "node_modules" || name == "testdata" || file != root && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && file != root {
				return fs.SkipDir // a module of its own, with imports of its own
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, file)
		rel = filepath.ToSlash(rel)
		list = append(list, source{
			path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"),
			ast: parsed, size: bytes.Count(text, []byte("\n")),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 10 {
		t.Fatalf("found %d files below %s: not the module root?", len(list), root)
	}
	return list
}

func (s source) imports() []string {
	var list []string
	for _, spec := range s.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		list = append(list, p)
	}
	return list
}

func TestImportsPointDown(t *testing.T) {
	layer := map[string]int{}
	for i, names := range layers {
		for _, name := range names {
			layer[name] = i
		}
	}
	for _, s := range sources(t) {
		at, listed := layer[s.pkg]
		if !listed {
			t.Errorf("%s: give package %s its place in the table of layers", s.path, s.pkg)
			continue
		}
		if s.test {
			continue // tests may look around
		}
		for _, imported := range s.imports() {
			target, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			if allowed, narrowed := only[s.pkg]; narrowed && !slices.Contains(allowed, target) {
				t.Errorf("%s imports %s; %s may import only %v", s.path, target, s.pkg, allowed)
			} else if layer[target] >= at {
				t.Errorf("%s imports %s, which is not below it", s.path, target)
			}
		}
	}
}

func TestFences(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, imported := range s.imports() {
			for fenced, allowed := range fences {
				if (imported == fenced || strings.HasPrefix(imported, fenced+"/")) && !slices.Contains(allowed, s.pkg) {
					t.Errorf("%s imports %s, which is for %v only", s.path, imported, allowed)
				}
			}
		}
		if s.pkg == "internal/access" || s.pkg == "internal/page" {
			for _, imported := range s.imports() {
				if strings.Contains(imported, ".") && !strings.HasPrefix(imported, module) {
					t.Errorf("%s imports %s; the nouns and the pages use the standard library only", s.path, imported)
				}
			}
		}
	}
}

// The nouns and the policy do no I/O: what they decide depends on their
// arguments alone.
func TestPurePackages(t *testing.T) {
	impure := []string{"net", "net/http", "os", "os/exec", "syscall", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand"}
	for _, s := range sources(t) {
		if s.test || s.pkg != "authz" && s.pkg != "internal/access" {
			continue
		}
		for _, imported := range s.imports() {
			if slices.Contains(impure, imported) && !(s.path == "internal/access/reason.go" && imported == "net/http") {
				t.Errorf("%s imports %s", s.path, imported)
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && (sel.Sel.Name == "Now" || sel.Sel.Name == "Since") {
					t.Errorf("%s reads the clock", s.path)
				}
			}
			return true
		})
	}
}

func TestPackagesSayWhatTheyAnswer(t *testing.T) {
	docs := map[string]string{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		docs[s.pkg] += "" // the package exists, documented or not
		if s.ast.Doc != nil {
			docs[s.pkg] += s.ast.Doc.Text()
		}
	}
	begins := regexp.MustCompile(`^(Package \w+ answers the\s+question|Command \w+ )`)
	for _, pkg := range slices.Sorted(maps.Keys(docs)) {
		if doc := docs[pkg]; !begins.MatchString(doc) {
			first, _, _ := strings.Cut(doc, "\n")
			t.Errorf("%s: the package comment begins %q, not with the question the package answers", pkg, first)
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	for _, s := range sources(t) {
		switch {
		case s.size > 800:
			t.Errorf("%s has %d lines; 800 is the limit", s.path, s.size)
		case s.size > 500 && !s.test:
			t.Logf("%s has %d lines: does it tell one story?", s.path, s.size)
		}
	}
}

func TestNoPackageForEverything(t *testing.T) {
	banned := []string{"util", "utils", "common", "helpers", "types", "pkg", "misc", "base", "shared"}
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(s.pkg, "/") {
			if slices.Contains(banned, part) {
				t.Errorf("%s lives in a folder called %s", s.path, part)
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

// Exported identifiers are the book others read.
func TestExportedIdentifiersAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, decl := range s.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil {
					t.Errorf("%s: %s has no doc comment", s.path, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: type %s has no doc comment", s.path, ts.Name.Name)
					}
				}
			}
		}
	}
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	name, ok := typ.(*ast.Ident)
	return !ok || name.IsExported()
}
