package page

import (
	"io"
	"net/http"
	"strings"
)

// frameBody says nothing that a page around it could make use of.
const frameBody = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Logged out</title></html>`

// LoggedOutFrame answers an identity provider that opened an address of ours in
// a hidden frame, to log the visitor out here as well. It is the only answer of
// ours that may be framed, and only by these origins.
func LoggedOutFrame(w http.ResponseWriter, origins ...string) {
	h := w.Header()
	Headers(h)
	h.Del("X-Frame-Options") // knows no list of origins; frame-ancestors takes its place
	h.Set("Content-Security-Policy", strings.Replace(policyWithoutForm,
		"frame-ancestors 'none'", "frame-ancestors "+strings.Join(origins, " "), 1))
	h.Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, frameBody)
}
