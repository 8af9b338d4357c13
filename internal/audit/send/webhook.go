package send

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// webhook sends a JSON array to an address, signed by HTTP Message Signatures
// (RFC 9421) over a digest of the content (RFC 9530).
type webhook struct {
	*poster
	cfg Webhook
}

func newWebhook(cfg Webhook, opts Options) (Sender, error) {
	p, err := newPoster(cfg.TLS, cfg.URL, opts)
	if err != nil {
		return nil, err
	}
	return &webhook{p, cfg}, nil
}

// Send implements Sender.
func (w *webhook) Send(ctx context.Context, batch []Record) error {
	body := join(batch, "[", ",", "]")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	w.sign(req, body)
	_, err = w.do(req)
	return err
}

// sign adds the digest and the signature.
func (w *webhook) sign(req *http.Request, body []byte) {
	sum := sha256.Sum256(body)
	req.Header.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
	params := fmt.Sprintf(`("@method" "@authority" "@path" "@query" "content-type" "content-digest");created=%d;keyid="%s";alg="hmac-sha256";tag="doorward-audit"`,
		w.now().Unix(), cmp.Or(w.cfg.KeyID, "doorward"))
	// RFC 9421 §2.5; the derived components are those of §2.2.
	base := strings.Join([]string{
		`"@method": ` + req.Method,
		`"@authority": ` + authority(req),
		`"@path": ` + cmp.Or(req.URL.EscapedPath(), "/"),
		`"@query": ?` + req.URL.RawQuery,
		`"content-type": ` + req.Header.Get("Content-Type"),
		`"content-digest": ` + req.Header.Get("Content-Digest"),
		`"@signature-params": ` + params,
	}, "\n")
	mac := hmac.New(sha256.New, []byte(w.cfg.Key.Reveal()))
	mac.Write([]byte(base))
	req.Header.Set("Signature-Input", "doorward="+params)
	req.Header.Set("Signature", "doorward=:"+base64.StdEncoding.EncodeToString(mac.Sum(nil))+":")
}

// authority is the host in lower case, without the default port of the scheme
// (RFC 9421 §2.2.3).
func authority(req *http.Request) string {
	port := map[string]string{"https": ":443", "http": ":80"}[req.URL.Scheme]
	return strings.TrimSuffix(strings.ToLower(req.URL.Host), port)
}
