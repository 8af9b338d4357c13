package access

import (
	"slices"
	"testing"
)

var (
	withTokens = []string{
		"https://doorward.example/a?t=eyJhbGciOiJ9.eyJzdWIiOi.c2lnbmF0dXJl&b", "eyJhbGciOiJ9eyJzdWIiOi.c2lnbmF0dXJl", "eyJhbGciOiJ9.eyJzdWIiOi..c2lnbmF0dXJl",
		"eyJ eyJhbGciOiJ9.eyJzdWIiOi", "eyJ\x00eyJhbGciOiJ9.eyJzdWIiOi....x.", "eyJ=eyJhbGciOiJ9.eyJzdWIiOi", "J=eyJeyJhbGciOiJ9.eyJzdWIiOi",
		"__Host-doorward=pT7w3vN0q1Yk8bJx2mZc5d", "doorward-login=pT7w3vN0q1Yk8bJx", "doorward=doorward=aaaaaaaaaaaaaaaa",
		"eyJaaaaaaaa.bbbbbbbbdoorward=cccccccccccccccc", "doorward=aaaaaaaaaaaaaaaaeyJbbbbbbbb.cccccccc",
	}
	withoutTokens = []string{
		"", "=", "J", "eyJ", "doorward", "doorward=", "eyJ.", "eyJ=", "/.doorward/login?next=%2F", "https://doorward.example/a=b", "heyJane, Johnson, eyJohn",
		"eyJhbGciOiJ9.eyJzdWI", "eyJhbGciOiJ9..eyJzdWIiOi", "eyJhbGci.eyJzdWIiOi", "cursor=eyJpZCI6MTIzNDU2fQ==", "doorward-login=pT7w3vN0q1Yk8bJ", "doorward--login=pT7w3vN0q1Yk8bJx",
	}
)

func TestHideTokens(t *testing.T) {
	for _, text := range withTokens {
		if HideTokens(text) == text {
			t.Errorf("nothing is hidden in %q", text)
		}
	}
	for _, text := range withoutTokens {
		if got := HideTokens(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// The expression alone says what is hidden; what stands before it only saves time.
func FuzzHideTokens(f *testing.F) {
	all := slices.Concat(withTokens, withoutTokens)
	for i, text := range all {
		f.Add(text, all[len(all)-1-i])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, text := range []string{a, a + b, a + "eyJ" + b, a + "doorward=" + b, a + "eyJaaaaaaaa." + b} {
			want := tokenLike.ReplaceAllLiteralString(text, redacted)
			if got := HideTokens(text); got != want {
				t.Errorf("%q becomes %q, not %q", text, got, want)
			}
			if got := string(HideTokensIn([]byte(text))); got != want {
				t.Errorf("%q in bytes becomes %q, not %q", text, got, want)
			}
		}
	})
}

func BenchmarkHideTokens(b *testing.B) {
	record := []byte(`{"kind":"decision","request":{"host":"doorward.example","path":"/.doorward/me","query":"cursor=eyJpZCI6MTIzNDU2fQ==&page=2"}}`)
	for len(record) < 1400 {
		record = append(record, `,"groups":["engineers","release managers"]`...)
	}
	b.SetBytes(int64(len(record)))
	for b.Loop() {
		HideTokensIn(record)
	}
}
