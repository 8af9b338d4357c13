package authz

import (
	"regexp"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func TestGlob(t *testing.T) {
	tests := []struct {
		glob string
		hit  []string
		miss []string
	}{
		{"/", []string{"/"}, []string{"", "/a", "//"}},
		{"/**", []string{"/", "/a", "/a/b/", "//"}, []string{"", "*", "a"}},
		{"/export/**", []string{"/export", "/export/", "/export/a/b"}, []string{"/exports", "/Export", "/", "/x/export"}},
		{"/export", []string{"/export"}, []string{"/export/", "/export/a"}},
		{"/*/edit", []string{"/a/edit", "/é/edit"}, []string{"/edit", "/a/b/edit", "/a/edit/"}},
		{"/files/*.pdf", []string{"/files/a.pdf", "/files/.pdf", "/files/a.pdf.pdf"}, []string{"/files/a.pdfx", "/files/a/b.pdf"}},
		{"/a*b*c", []string{"/abc", "/axxbbxc"}, []string{"/ab", "/acb"}},
		{"/**/admin/**", []string{"/admin", "/x/y/admin", "/admin/z", "/a/admin/b/admin"}, []string{"/administrator", "/x/adminz"}},
		{"/a/**/b/**/c", []string{"/a/b/c", "/a/x/b/b/y/c"}, []string{"/a/c", "/a/b/c/d"}},
		{"/**/*.js", []string{"/a.js", "/x/y/a.js"}, []string{"/a.jsx", "/a.js/b"}},
	}
	for _, tt := range tests {
		g, err := parseGlob(tt.glob)
		if err != nil {
			t.Errorf("%s: %v", tt.glob, err)
			continue
		}
		for _, path := range tt.hit {
			if !g.match(path) {
				t.Errorf("%s should match %q", tt.glob, path)
			}
		}
		for _, path := range tt.miss {
			if g.match(path) {
				t.Errorf("%s should not match %q", tt.glob, path)
			}
		}
	}
}

func TestGlobIsNotExponential(t *testing.T) {
	g, err := parseGlob(strings.Repeat("/**/a*a*a*", 40) + "/end")
	if err != nil {
		t.Fatal(err)
	}
	if g.match(strings.Repeat("/aaaaaaaaaaaaaaaaaaaaaa", 400)) {
		t.Error("matched")
	}
}

// globRegexp is the same language, written with the standard library.
func globRegexp(glob string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A(?s:`)
	for segment := range strings.SplitSeq(glob[1:], "/") {
		if segment == "**" {
			b.WriteString(`(?:/[^/]*)*`)
			continue
		}
		b.WriteString("/" + strings.ReplaceAll(regexp.QuoteMeta(segment), `\*`, `[^/]*`))
	}
	b.WriteString(`)\z`)
	return regexp.MustCompile(b.String())
}

func FuzzGlob(f *testing.F) {
	f.Add("/**", "/a/b")
	f.Add("/a/**/b*c/**", "/a/x/bc")
	f.Add("/*", "/")
	f.Add("/a//b", "/a//b")
	f.Add("/export/**", "/export")
	f.Add("/%2e%2e/*", "/../x")
	f.Fuzz(func(t *testing.T, source, path string) {
		g, err := parseGlob(source)
		if err != nil || len(path) > 4096 || strings.ToValidUTF8(path, "") != path {
			return
		}
		want := strings.HasPrefix(path, "/") && globRegexp(source).MatchString(path)
		if got := g.match(path); got != want {
			t.Errorf("%q on %q: %v, want %v", source, path, got, want)
		}
	})
}

// A route that permits spellings on which servers disagree opens no way around
// its rules.
func TestAmbiguousPathEvadesNoRule(t *testing.T) {
	p := paths{{source: "/admin/**", segments: []string{"admin", "**"}}}
	for path, want := range map[string]access.Tri{
		"/admin/x": access.Yes, "/admin/x;v=1": access.Yes, "/admin//x": access.Yes, "/admin/": access.Yes,
		"/admin;v=1/x": access.Unknown, "//admin/x": access.Unknown, `/admin\x`: access.Unknown, "/%61dmin/x": access.Unknown, "/%2561dmin/%": access.Unknown,
		"/other;v=1/x": access.No, "/100%": access.No, "//": access.No,
	} {
		if got := p.test(&access.Request{Path: path}); got != want {
			t.Errorf("%s: %v, not %v", path, got, want)
		}
	}
}
