package send

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// azure sends to the Logs Ingestion API of Azure Monitor.
type azure struct {
	*poster
	cfg     Azure
	token   string
	expires time.Time
}

func newAzure(cfg Azure, opts Options) (Sender, error) {
	p, err := newPoster(cfg.TLS, cfg.Endpoint, opts)
	if err != nil {
		return nil, err
	}
	return &azure{poster: p, cfg: cfg}, nil
}

// Send implements Sender.
func (a *azure) Send(ctx context.Context, batch []Record) error {
	if err := a.authorize(ctx); err != nil {
		return err
	}
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	if _, err := z.Write(join(batch, "[", ",", "]")); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	header := http.Header{"Authorization": {"Bearer " + a.token}, "Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}
	_, err := a.post(ctx, strings.TrimRight(a.cfg.Endpoint, "/")+"/dataCollectionRules/"+a.cfg.Rule+"/streams/"+a.cfg.Stream+"?api-version=2023-01-01", header, body.Bytes())
	var status *Status
	if errors.As(err, &status) && status.Code == http.StatusUnauthorized {
		a.token = "" // ask for a new one next time
	}
	return err
}

// authorize gets a token by the client credentials grant (RFC 6749 §4.4) unless
// there is one that is good for another minute.
func (a *azure) authorize(ctx context.Context) error {
	if a.token != "" && a.now().Before(a.expires.Add(-time.Minute)) {
		return nil
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {a.cfg.ClientID},
		"client_secret": {a.cfg.ClientSecret.Reveal()}, "scope": {"https://monitor.azure.com/.default"}}
	address := strings.TrimRight(cmp.Or(a.cfg.Login, "https://login.microsoftonline.com"), "/") + "/" + a.cfg.Tenant + "/oauth2/v2.0/token"
	answer, err := a.post(ctx, address, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(form.Encode()))
	if err != nil {
		var rejected *Rejected
		if errors.As(err, &rejected) {
			err = rejected.Err // it is not the events that were rejected
		}
		return fmt.Errorf("no token: %w", err)
	}
	var said struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || said.Token == "" {
		return errors.New("no token: the answer holds none")
	}
	if strings.ContainsAny(said.Token, "\r\n ") {
		return errors.New("no token: it cannot stand in a header")
	}
	a.token, a.expires = said.Token, a.now().Add(time.Duration(min(max(said.Expires, 0), 86400))*time.Second)
	return nil
}
