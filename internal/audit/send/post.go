package send

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

const (
	maxAnswer = 64 << 10         // most bytes read of an answer
	maxPause  = 15 * time.Minute // longest pause that a receiver is granted
)

// poster sends requests to one receiver.
type poster struct {
	client *http.Client
	now    func() time.Time
}

func newPoster(t TLS, address string, opts Options) (*poster, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	conf, err := t.config("")
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = conf
	transport.MaxResponseHeaderBytes = maxAnswer
	if access.Loopback(u.Hostname()) {
		transport.Proxy = nil
	}
	return &poster{now: opts.Now, client: &http.Client{
		Transport: transport, Timeout: timeout,
		// Events and secrets go where the configuration says, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// post sends a body and returns the answer to a success. Any other answer is an
// error that says whether trying again is of use.
func (p *poster) post(ctx context.Context, address string, header http.Header, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header
	return p.do(req)
}

func (p *poster) do(req *http.Request) ([]byte, error) {
	resp, err := p.client.Do(req)
	if err != nil {
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err // the address may be long
		}
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 == 2 {
		return answer, err
	}
	status := &Status{Code: resp.StatusCode, Answer: answer}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return nil, &Rejected{status}
	}
	if after := p.retryAfter(resp.Header.Get("Retry-After")); after > 0 {
		return nil, &Wait{status, after}
	}
	return nil, status
}

// retryAfter reads seconds or a date (RFC 9110 §10.2.3); 0 if there is neither.
func (p *poster) retryAfter(text string) time.Duration {
	after := time.Duration(0)
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		after = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		after = at.Sub(p.now())
	}
	return min(max(after, 0), maxPause)
}

// Close implements Sender.
func (p *poster) Close() { p.client.CloseIdleConnections() }

// Status is an answer that is no success.
type Status struct {
	Code   int
	Answer []byte
}

// Error implements error.
func (s *Status) Error() string {
	said := strings.ToValidUTF8(string(s.Answer[:min(len(s.Answer), 300)]), "?")
	return fmt.Sprintf("status %d: %q", s.Code, access.HideTokens(said))
}

// join puts records together as JSON values.
func join(batch []Record, open, between, end string) []byte {
	var b bytes.Buffer
	b.WriteString(open)
	for i := range batch {
		if i > 0 {
			b.WriteString(between)
		}
		b.Write(batch[i].Body)
	}
	b.WriteString(end)
	return b.Bytes()
}
