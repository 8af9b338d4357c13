package signals

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/jose"
)

// takeTimeout is how long carrying out an event may take. It does not depend on
// how long the transmitter waits.
const takeTimeout = 20 * time.Second

// Serve answers /.doorward/signals: a pushed security event (RFC 8935 §2). Anyone
// may call it; the agreed header says who, and the token what. It answers 202
// only when the event has been carried out or recorded as one that is not, and
// 503 when the transmitter should try again: an event is never lost between.
func (r *Receiver) Serve(w http.ResponseWriter, in *http.Request, req *access.Request) error {
	if in.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	err := r.pushed(w, in, req.ID)
	var no *refusal
	switch {
	case err == nil:
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusAccepted)
		return nil
	case errors.As(err, &no):
		answer(w, no)
		return nil
	}
	r.opts.Log.Warn("a pushed security event could not be carried out; the transmitter is asked to send it again", "request", req.ID, "error", err)
	w.Header().Set("Retry-After", "5")
	return access.Because(access.StoreUnavailable, err)
}

func (r *Receiver) pushed(w http.ResponseWriter, in *http.Request, request string) error {
	if media, _, err := mime.ParseMediaType(in.Header.Get("Content-Type")); err != nil || media != "application/secevent+jwt" {
		return refuse(invalidRequest, "a body of type %.60q", in.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, in.Body, jose.MaxToken))
	if err != nil {
		return refuse(invalidRequest, "the body cannot be read or is too large")
	}
	t := r.sender(in.Header.Values("Authorization"))
	if t == nil {
		return refuse(authenticationFailed, "this is not what was agreed as authorization_header")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(in.Context()), takeTimeout)
	defer cancel()
	return r.take(ctx, t, string(body), request)
}

// sender finds the transmitter that pushes with a header. Several may be of one
// issuer; the header tells them apart. All are compared, in constant time.
func (r *Receiver) sender(headers []string) (found *transmitter) {
	if len(headers) != 1 {
		return nil
	}
	got := sha256.Sum256([]byte(headers[0]))
	for _, t := range r.transmitters {
		if t.cfg.polls() {
			continue
		}
		want := sha256.Sum256([]byte(t.cfg.PushSecret.Reveal()))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 && t.cfg.PushSecret.Reveal() != "" {
			found = t
		}
	}
	return found
}

// answer writes a refusal (RFC 8935 §2.3). Even a wrong header is a 400 there.
func answer(w http.ResponseWriter, no *refusal) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Language", "en")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(describe(no)) // an error means that the caller is gone
}

func describe(no *refusal) map[string]string {
	return map[string]string{"err": no.code, "description": fmt.Sprintf("%.200s", no.err)}
}
