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
	// The two searches keep the expression from texts that cannot hold any.
	if !strings.Contains(text, "eyJ") && !strings.Contains(text, "doorward") {
		return text
	}
	return tokenLike.ReplaceAllLiteralString(text, redacted)
}

// HideTokensIn is HideTokens for bytes, which it may return unchanged.
func HideTokensIn(text []byte) []byte {
	if !bytes.Contains(text, []byte("eyJ")) && !bytes.Contains(text, []byte("doorward")) {
		return text
	}
	return tokenLike.ReplaceAllLiteral(text, []byte(redacted))
}
