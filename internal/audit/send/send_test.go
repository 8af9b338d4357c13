package send

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/format"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a system that takes events, as its protocol has it.
type receiver struct {
	t    *testing.T
	mu   sync.Mutex
	got  []string // bodies of records, in order
	head http.Header
	// answer, if set, is given in the place of a success.
	status int
	answer string
	after  string
}

func (r *receiver) bodies() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

func (r *receiver) refuse(status int, answer, after string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.answer, r.after = status, answer, after
}

// web is a receiver that speaks HTTP; take reads the bodies out of a request.
func (r *receiver) web(take func(req *http.Request, body []byte) []string) (address, ca string) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if strings.HasSuffix(req.URL.Path, "/oauth2/v2.0/token") {
			form := string(body)
			if !strings.Contains(form, "client_secret=s3cret") || !strings.Contains(form, "scope=https%3A%2F%2Fmonitor.azure.com%2F.default") {
				r.t.Error("token request:", form)
			}
			fmt.Fprint(w, `{"access_token":"granted","expires_in":3600}`)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.head = req.Header
		if r.status != 0 {
			w.Header().Set("Retry-After", r.after)
			w.WriteHeader(r.status)
			fmt.Fprint(w, r.answer)
			return
		}
		r.got = append(r.got, take(req, body)...)
		fmt.Fprint(w, r.answer)
	}))
	r.t.Cleanup(server.Close)
	return server.URL, authorityFile(r.t, server.Certificate().Raw)
}

func authorityFile(t *testing.T, der []byte) string {
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func array(t *testing.T, body []byte) (list []string) {
	var all []json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		t.Error(err)
	}
	for _, one := range all {
		list = append(list, string(one))
	}
	return list
}

var webhookKey = strings.Repeat("w", 32)

// receivers is one of each protocol.
var receivers = map[string]func(r *receiver) To{
	"splunk": func(r *receiver) To {
		address, ca := r.web(func(req *http.Request, body []byte) (list []string) {
			if req.URL.Path != "/services/collector/event" || req.Header.Get("Authorization") != "Splunk t0ken" {
				r.t.Error(req.URL.Path, req.Header)
			}
			for d := json.NewDecoder(bytes.NewReader(body)); ; {
				var e splunkEvent
				if err := d.Decode(&e); err != nil {
					return list
				}
				if e.Host != "door-1" || e.SourceType != "doorward:decision" || e.Index != "zt" || !strings.HasPrefix(string(e.Time), "17740000") {
					r.t.Errorf("%+v", e)
				}
				list = append(list, string(e.Event))
			}
		})
		return To{Splunk: Splunk{URL: address, Token: access.NewSecret("t0ken"), Index: "zt", TLS: TLS{CA: ca}}}
	},
	"otlp": func(r *receiver) To {
		address, ca := r.web(func(req *http.Request, body []byte) (list []string) {
			var sent otlpRequest
			d := json.NewDecoder(bytes.NewReader(body))
			d.DisallowUnknownFields()
			if err := d.Decode(&sent); err != nil || req.URL.Path != "/v1/logs" || req.Header.Get("Authorization") != "Bearer t0ken" || len(sent.Logs) != 1 {
				r.t.Error(err, req.URL.Path, req.Header)
			}
			for _, one := range sent.Logs[0].Scopes[0].Records {
				if !strings.HasPrefix(one.Time, "17740000") || one.SeverityNumber != 9 || one.Attributes[0] != attribute("event.name", "doorward.decision") {
					r.t.Errorf("%+v", one)
				}
				list = append(list, one.Body.Text)
			}
			return list
		})
		return To{OTLP: OTLP{URL: address + "/v1/logs", Header: access.NewSecret("Bearer t0ken"), TLS: TLS{CA: ca}}}
	},
	"azure": func(r *receiver) To {
		address, ca := r.web(func(req *http.Request, body []byte) []string {
			if req.URL.RequestURI() != "/dataCollectionRules/dcr-1/streams/Custom-Doorward_CL?api-version=2023-01-01" || req.Header.Get("Authorization") != "Bearer granted" {
				r.t.Error(req.URL, req.Header)
			}
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				r.t.Error(err)
				return nil
			}
			plain, _ := io.ReadAll(z)
			return array(r.t, plain)
		})
		return To{Azure: Azure{Endpoint: address, Rule: "dcr-1", Stream: "Custom-Doorward_CL", Tenant: "t-1", ClientID: "c-1", ClientSecret: access.NewSecret("s3cret"), Login: address, TLS: TLS{CA: ca}}}
	},
	"webhook": func(r *receiver) To {
		address, ca := r.web(func(req *http.Request, body []byte) []string {
			verifyWebhook(r.t, req, body)
			return array(r.t, body)
		})
		return To{Webhook: Webhook{URL: address + "/in%2Fbox?a=b", Key: access.NewSecret(webhookKey), KeyID: "k1", TLS: TLS{CA: ca}}}
	},
	"syslog": func(r *receiver) To {
		address, ca := r.syslog()
		return To{Syslog: Syslog{Address: address, TLS: TLS{CA: ca}}}
	},
}

// verifyWebhook does what a receiver does that trusts nothing but the key.
func verifyWebhook(t *testing.T, req *http.Request, body []byte) {
	sum := sha256.Sum256(body)
	if got := req.Header.Get("Content-Digest"); got != "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":" {
		t.Error("digest", got)
	}
	params, ok := strings.CutPrefix(req.Header.Get("Signature-Input"), "doorward=")
	covered, _, _ := strings.Cut(strings.TrimPrefix(params, "("), ")")
	if !ok || !strings.Contains(params, `keyid="k1"`) || !strings.Contains(params, "created=1774000000;") {
		t.Error(params)
	}
	var base strings.Builder
	for name := range strings.FieldsSeq(covered) {
		name = strings.Trim(name, `"`)
		value := map[string]string{"@method": req.Method, "@authority": req.Host, "@path": req.URL.EscapedPath(), "@query": "?" + req.URL.RawQuery}[name]
		if value == "" {
			value = req.Header.Get(name)
		}
		fmt.Fprintf(&base, "%q: %s\n", name, value)
	}
	base.WriteString(`"@signature-params": ` + params)
	mac := hmac.New(sha256.New, []byte(webhookKey))
	mac.Write([]byte(base.String()))
	if got := req.Header.Get("Signature"); got != "doorward=:"+base64.StdEncoding.EncodeToString(mac.Sum(nil))+":" {
		t.Errorf("signature %s over\n%s", got, base.String())
	}
}

// syslog is a receiver over TLS. While its status is set it resets connections.
func (r *receiver) syslog() (address, ca string) {
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate
	web.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", web.TLS)
	if err != nil {
		r.t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { r.syslogConn(conn.(*tls.Conn)) })
		}
	})
	r.t.Cleanup(func() { listener.Close(); group.Wait() })
	return listener.Addr().String(), authorityFile(r.t, web.Certificate().Raw)
}

func (r *receiver) syslogConn(conn *tls.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status != 0 {
		if conn.Handshake() == nil {
			conn.Read(make([]byte, 10))
		}
		conn.NetConn().(*net.TCPConn).SetLinger(0)
		conn.NetConn().Close() // what it had read is lost
		return
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		r.t.Error(err)
	}
	for rest := string(text); rest != ""; {
		length, more, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(length)
		if err != nil || n > len(more) {
			r.t.Errorf("no frame: %.60q", rest)
			return
		}
		message, bodyAt := more[:n], strings.Index(more, "\xef\xbb\xbf")
		rest = more[n:]
		fields := strings.Fields(message[:bodyAt])
		if len(fields) != 7 || fields[0] != "<86>1" || fields[1] != "2026-03-20T09:46:40.000000Z" && !strings.HasPrefix(fields[1], "2026-03-20T09:46:") ||
			fields[2] != "door-1" || fields[3] != "doorward" || fields[5] != "decision" || fields[6] != "-" {
			r.t.Errorf("header %q", fields)
		}
		r.got = append(r.got, message[bodyAt+3:])
	}
}

func records(from, n int) (list []Record) {
	for i := from; i < from+n; i++ {
		list = append(list, Record{Time: time.Unix(1774000000, int64(i)*1e6), Kind: "decision", Severity: format.Informational,
			Body: fmt.Appendf(nil, `{"kind":"decision","note":"ümläut <&> %d"}`, i)})
	}
	return list
}

// The same for every protocol: order and content arrive, a failure is an error
// and can be tried again, and the sender closes what it opened.
func TestSenders(t *testing.T) {
	for name, make := range receivers {
		t.Run(name, func(t *testing.T) {
			r := &receiver{t: t}
			to := make(r)
			f := access.NewFaults("")
			if to.Validate(f); len(f.List()) != 0 {
				t.Fatal(f.List())
			}
			s, limits, err := New(&to, Options{Host: "door-1", Version: "1", Now: func() time.Time { return time.Unix(1774000000, 0) }})
			if err != nil || limits.Records < 1 || limits.Bytes < 1 {
				t.Fatal(err, limits)
			}
			defer s.Close()
			want := append(records(0, 3), records(3, 40)...)
			for _, batch := range [][]Record{want[:3], want[3:]} {
				if err := s.Send(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
			}
			got := r.bodies()
			if len(got) != len(want) {
				t.Fatalf("got %d of %d: %q", len(got), len(want), got)
			}
			for i := range want {
				if got[i] != string(want[i].Body) {
					t.Errorf("%d: %s", i, got[i])
				}
			}
			r.refuse(http.StatusServiceUnavailable, "busy", "")
			var rejected *Rejected
			if err := s.Send(t.Context(), want); err == nil || errors.As(err, &rejected) {
				t.Error("a receiver that fails:", err)
			}
			r.refuse(0, "", "")
			if err := s.Send(t.Context(), want[:1]); err != nil || len(r.bodies()) != len(want)+1 {
				t.Error("a receiver that recovered:", err, len(r.bodies()))
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Send(ctx, want); err == nil {
				t.Error("sent after the end")
			}
		})
	}
}

// Nobody but the receiver that is configured gets an event.
func TestSendersDemandTheRightCertificate(t *testing.T) {
	for name, make := range receivers {
		t.Run(name, func(t *testing.T) {
			r := &receiver{t: t}
			to := make(r)
			for _, conf := range []*TLS{&to.Syslog.TLS, &to.Splunk.TLS, &to.OTLP.TLS, &to.Azure.TLS, &to.Webhook.TLS} {
				conf.CA = ""
			}
			s, _, err := New(&to, Options{Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			r.refuse(http.StatusTeapot, "", "") // a receiver of syslog expects nothing then
			if err := s.Send(t.Context(), records(0, 1)); err == nil || len(r.bodies()) != 0 || r.head != nil {
				t.Error(err, r.bodies())
			}
		})
	}
}

// What an answer means for the batch.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer, after string
		status              int
		rejected            bool
		wait                time.Duration
	}{
		{"splunk", `{"text":"Invalid data format","code":6}`, "", 400, true, 0},
		{"splunk", `{"text":"Incorrect index","code":7}`, "", 400, false, 0},
		{"splunk", `{"text":"Server is busy","code":9}`, "7", 503, false, 7 * time.Second},
		{"splunk", ``, "", 403, false, 0},
		{"splunk", ``, "", 302, false, 0},
		{"azure", ``, "120", 429, false, 2 * time.Minute},
		{"azure", ``, "99999999", 429, false, maxPause},
		{"azure", ``, "", 413, true, 0},
		{"azure", ``, "", 401, false, 0},
		{"webhook", ``, "Fri, 20 Mar 2026 09:47:40 GMT", 503, false, time.Minute},
		{"webhook", ``, "", 422, true, 0},
		{"webhook", ``, "", 404, false, 0},
		{"otlp", ``, "", 400, true, 0},
	} {
		r := &receiver{t: t}
		to := receivers[c.name](r)
		s, _, err := New(&to, Options{Host: "door-1", Now: func() time.Time { return time.Unix(1774000000, 0) }})
		if err != nil {
			t.Fatal(err)
		}
		r.refuse(c.status, c.answer, c.after)
		err = s.Send(t.Context(), records(0, 2))
		s.Close()
		var rejected *Rejected
		var wait *Wait
		if err == nil || errors.As(err, &rejected) != c.rejected || errors.As(err, &wait) != (c.wait > 0) || wait != nil && wait.After != c.wait {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A collector may answer with a success and refuse some records.
func TestPartialSuccessIsNone(t *testing.T) {
	for answer, rejected := range map[string]bool{
		``: false, `{}`: false, `{"partialSuccess":{}}`: false, `{"partialSuccess":{"rejectedLogRecords":"0"}}`: false,
		`{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}`: true, `{"partialSuccess":{"rejectedLogRecords":1}}`: true,
	} {
		var is *Rejected
		if errors.As(partial([]byte(answer)), &is) != rejected {
			t.Error(answer)
		}
	}
}

func TestSyslogHeaderHoldsNoForeignText(t *testing.T) {
	for text, want := range map[string]string{"door 1\n<7>": "door1<7>", "": "-", "ü": "-", strings.Repeat("x", 40): strings.Repeat("x", 32)} {
		if got := printusascii(text, 32); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestValidateReportsEveryMistake(t *testing.T) {
	for _, c := range []struct {
		to   To
		want string
	}{
		{To{Syslog: Syslog{Address: "logs.example"}}, "syslog.address"},
		{To{Syslog: Syslog{Address: "logs.example:514", Plain: true, Facility: 24}}, "syslog.address syslog.facility"},
		{To{Syslog: Syslog{Address: "logs.example:514", Plain: true, TLS: TLS{Unencrypted: "our own link"}}}, ""},
		{To{Syslog: Syslog{Address: "127.0.0.1:514", Plain: true, TLS: TLS{CA: "ca.pem"}}}, "syslog.plain"},
		{To{Syslog: Syslog{Address: "logs.example:6514", TLS: TLS{Certificate: "a"}}}, "syslog.certificate"},
		{To{Splunk: Splunk{URL: "http://splunk.example:8088"}}, "splunk.token splunk.url"},
		{To{Splunk: Splunk{URL: "https://user@splunk.example", Token: access.NewSecret("t")}}, "splunk.url"},
		{To{OTLP: OTLP{URL: "ftp://x/"}}, "otlp.url"},
		{To{OTLP: OTLP{URL: "http://localhost:4318/v1/logs"}}, ""},
		{To{Azure: Azure{Endpoint: "https://a.example", Stream: "a/../b"}}, "azure.client_id azure.client_secret azure.rule azure.stream azure.tenant"},
		{To{Webhook: Webhook{URL: "https://a.example", Key: access.NewSecret("short"), KeyID: `"`}}, "webhook.key webhook.key_id"},
	} {
		f := access.NewFaults("")
		c.to.Validate(f)
		var paths []string
		for _, fault := range f.List() {
			if fault.Text == "" || fault.Cure == "" {
				t.Errorf("%+v", fault)
			}
			paths = append(paths, fault.Path)
		}
		slices.Sort(paths)
		if got := strings.Join(paths, " "); got != c.want || c.to.Count() != 1 || c.to.Name() == "" {
			t.Errorf("%+v: %s", c.to, got)
		}
	}
}
