package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// keys are one public key of each kind.
type keys struct {
	rsa     *rsa.PublicKey
	ecdsa   *ecdsa.PublicKey
	ed25519 ed25519.PublicKey
}

func makeKeys(t testing.TB) keys {
	t.Helper()
	r, err1 := rsa.GenerateKey(rand.Reader, 2048)
	e, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ed, _, err3 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return keys{&r.PublicKey, &e.PublicKey, ed}
}

// point returns the coordinates of the key on P-256.
func (k keys) point() (x, y []byte) {
	raw, err := k.ecdsa.Bytes()
	if err != nil {
		panic(err)
	}
	return raw[1:33], raw[33:]
}

func TestUsableKeysOnly(t *testing.T) {
	s := makeKeys(t)
	x, y := s.point()
	n, ed := b64(s.rsa.N.Bytes()), b64(s.ed25519)
	good := map[string]string{
		"RSA":     `{"kty":"RSA","kid":"1","use":"sig","n":"` + n + `","e":"AQAB"}`,
		"EC":      `{"kty":"EC","crv":"P-256","x":"` + b64(x) + `","y":"` + b64(y) + `","key_ops":["verify"]}`,
		"Ed25519": `{"kty":"OKP","crv":"Ed25519","x":"` + ed + `","alg":"EdDSA"}`,
	}
	for name, text := range good {
		if _, err := ParseKey(mustObject(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"for encryption":      strings.Replace(good["RSA"], `"sig"`, `"enc"`, 1),
		"for signing":         strings.Replace(good["EC"], "verify", "sign", 1),
		"for HS256":           strings.Replace(good["RSA"], `"kid":"1"`, `"alg":"HS256"`, 1),
		"too short":           `{"kty":"RSA","n":"` + n[:300] + `","e":"AQAB"}`,
		"exponent 1":          strings.Replace(good["RSA"], "AQAB", "AQ", 1),
		"even exponent":       strings.Replace(good["RSA"], "AQAB", "AQAA", 1),
		"huge exponent":       strings.Replace(good["RSA"], "AQAB", "AQABAQAB", 1),
		"no modulus":          `{"kty":"RSA","e":"AQAB"}`,
		"off the curve":       strings.Replace(good["EC"], b64(y), b64(x), 1),
		"another curve":       strings.Replace(good["EC"], "P-256", "P-384", 1),
		"short point":         strings.Replace(good["EC"], b64(x), b64(x[1:]), 1),
		"short Ed25519":       strings.Replace(good["Ed25519"], ed, ed[:40], 1),
		"symmetric":           `{"kty":"oct","k":"AAAA"}`,
		"nothing":             `{}`,
		"kid is a number":     strings.Replace(good["RSA"], `"1"`, `1`, 1),
		"base64 with padding": strings.Replace(good["RSA"], "AQAB", "AQAB====", 1),
	} {
		if k, err := ParseKey(mustObject(t, text)); err == nil {
			t.Errorf("%s was accepted: %T", name, k.Public)
		}
	}
}

func mustObject(t testing.TB, text string) Object {
	t.Helper()
	obj, err := ParseObject([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return obj
}

func TestMissedKIDsAreBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var s KeySet
	s.Now = func() time.Time { return now }
	for i := range 10 * maxMissedKIDs {
		s.miss(fmt.Sprint(i))
	}
	if len(s.missed) > maxMissedKIDs {
		t.Errorf("%d kids are remembered", len(s.missed))
	}
	s.miss("k")
	if !s.recentlyMissed("k") {
		t.Error("forgotten at once")
	}
	now = now.Add(missedFor)
	if s.recentlyMissed("k") {
		t.Error("never forgotten")
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"Ed25519","x":""}]}`))
	keys, err := json.Marshal(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "n": b64(makeKeys(f).rsa.N.Bytes()), "e": "AQAB"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(keys)
	f.Fuzz(func(t *testing.T, data []byte) {
		obj, err := ParseObject(data)
		if err != nil {
			return
		}
		keys, err := ParseKeys(obj)
		if (len(keys) == 0) != (err != nil) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for i := range keys {
			for _, alg := range []string{"none", "HS256", ""} {
				if keys[i].Serves(alg) {
					t.Fatalf("a key serves %q", alg)
				}
			}
		}
	})
}

func TestKeySetsAreBounded(t *testing.T) {
	key := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(makeKeys(t).ed25519)}
	if _, err := ParseKeys(Object{"keys": slices.Repeat([]any{key}, maxKeys+1)}); err == nil {
		t.Error("a set without end was accepted")
	}
	if keys, err := ParseKeys(Object{"keys": slices.Repeat([]any{key}, 2)}); err != nil || len(keys) != 2 {
		t.Error(err)
	}
}
