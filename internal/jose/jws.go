package jose

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

// MaxToken is the largest token that is looked at, in bytes.
const MaxToken = 256 << 10

// Algorithms returns the only signature algorithms there are for us: asymmetric,
// and none of them in use with more than one kind of key.
func Algorithms() []string { return []string{"RS256", "PS256", "ES256", "EdDSA"} }

// Parse splits a token in compact form (RFC 7515 §7.1) into its header and
// payload. Nothing is verified.
func Parse(raw string) (header, claims Object, payload []byte, err error) {
	if len(raw) > MaxToken {
		return nil, nil, nil, fmt.Errorf("a token of more than %d bytes", MaxToken)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, nil, nil, errors.New("not a signed token in compact form")
	}
	if header, _, err = parsePart(parts[0]); err != nil {
		return nil, nil, nil, fmt.Errorf("token header: %w", err)
	}
	if claims, payload, err = parsePart(parts[1]); err != nil {
		return nil, nil, nil, fmt.Errorf("token payload: %w", err)
	}
	return header, claims, payload, nil
}

func parsePart(text string) (Object, []byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, nil, err
	}
	if strings.ContainsAny(text, "\r\n") {
		return nil, nil, errors.New("line breaks in base64") // which the decoder skips
	}
	obj, err := ParseObject(data)
	return obj, data, err
}

// CheckHeader returns the algorithm and the key id, if the header holds nothing
// that would change the meaning of the token or bring a key of its own.
func CheckHeader(header Object, accepted []string, types ...string) (alg, kid string, err error) {
	for _, name := range []string{"crit", "b64", "jwk", "jku", "x5u", "zip", "enc"} {
		if _, present := header[name]; present {
			return "", "", fmt.Errorf("the token header has %q", name)
		}
	}
	typ, err := header.Text("typ")
	if err != nil {
		return "", "", err
	}
	if typ != "" && !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, typ) }) {
		return "", "", fmt.Errorf("a token of type %.40q is not %s", typ, strings.Join(types, " or "))
	}
	if alg, err = header.Text("alg"); err != nil {
		return "", "", err
	}
	if !slices.Contains(accepted, alg) {
		return "", "", fmt.Errorf("the algorithm %.20q is not accepted", alg)
	}
	kid, err = header.Text("kid")
	return alg, kid, err
}

// Verify checks that one of the keys signed a token, and that the signature covers
// the very bytes that its payload was decoded from.
func Verify(ctx context.Context, raw string, payload []byte, keys []crypto.PublicKey) error {
	signed, err := (&oidc.StaticKeySet{PublicKeys: keys}).VerifySignature(ctx, raw)
	if err != nil {
		return fmt.Errorf("the signature is wrong: %w", err)
	}
	if !bytes.Equal(signed, payload) {
		return errors.New("the signature covers something else")
	}
	return nil
}
