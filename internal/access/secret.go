package access

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Secret is a value the configuration may only name, never hold: `{file: PATH}`
// or `{env: NAME}`. It prints as [redacted] in every format.
type Secret struct {
	// File is read once at load and again when it changes. Trailing newlines
	// are removed.
	File string `yaml:"file"`
	// Env is the name of an environment variable.
	Env string `yaml:"env"`

	// A pointer, because fmt reads unexported fields of enclosing structs
	// without asking their methods; it prints an address then.
	value *string
}

// NewSecret returns a secret that is already known, for code that makes one.
func NewSecret(value string) Secret { return Secret{value: &value} }

// Resolve returns a copy that holds the value read from File or Env.
func (s Secret) Resolve(value string) Secret {
	s.value = &value
	return s
}

// Reveal returns the value, empty if the secret was never resolved. Callers
// hand it to a cryptographic or network operation and nowhere else.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether the configuration does not mention the secret.
func (s Secret) IsZero() bool { return s.File == "" && s.Env == "" && s.value == nil }

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler, which JSON, YAML and slog use.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// tokenLike is what signed tokens and Doorward's own cookies look like.
var tokenLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*|doorward(?:-login)?=[A-Za-z0-9_-]{16,}`)

// HideTokens replaces what looks like a signed token or one of Doorward's own
// cookies. None should ever get into a log; should one (an upstream may put a
// token into a path), this is what keeps it out.
func HideTokens(text string) string {
	if !mayHoldToken(text, strings.IndexByte) {
		return text
	}
	return tokenLike.ReplaceAllLiteralString(text, redacted)
}

// HideTokensIn is HideTokens for bytes, which it may return unchanged.
func HideTokensIn(text []byte) []byte {
	if !mayHoldToken(text, bytes.IndexByte) {
		return text
	}
	return tokenLike.ReplaceAllLiteral(text, []byte(redacted))
}

// mayHoldToken reports whether a text may have a part that is tokenLike. It keeps
// the expression, which is slow, from nearly all that have none: every audit
// record is looked at.
func mayHoldToken[T string | []byte](text T, index func(T, byte) int) bool {
	for at := 0; ; at++ {
		next := index(text[at:], '=')
		if next < 0 {
			break
		}
		at += next
		if endsWith(text[:at], "doorward") || endsWith(text[:at], "doorward-login") {
			return true
		}
	}
	// A J is rarer than an e, and a token has a dot behind its first part.
	for at := 0; ; at++ {
		next := index(text[at:], 'J')
		if next < 0 {
			return false
		}
		at += next
		if !endsWith(text[:at], "ey") {
			continue
		}
		for at++; at < len(text) && inToken(text[at]); at++ {
		}
		if at < len(text) && text[at] == '.' {
			return true
		}
		at-- // what ends the part may not be skipped
	}
}

func endsWith[T string | []byte](text T, end string) bool {
	return len(text) >= len(end) && string(text[len(text)-len(end):]) == end
}

// inToken reports whether a byte may stand in base64url.
func inToken(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
