package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// carried is what became of a request: what the upstream saw of it, and the
// visitor of the answer.
type carried struct {
	Asked           string
	AskedHeader     http.Header
	Status          int
	Header, Trailer http.Header
	Body            string
	Length          int64
	Interim         []string
	Broken          bool
}

// What httputil.ReverseProxy does with a request and its answer the door does as
// well, but for what it adds to either by design.
func TestForwardsAsReverseProxyDoes(t *testing.T) {
	ours := []string{AssertionHeader, requestIDHeader, "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", hstsHeader, "Date"}
	quiet := log.New(io.Discard, "", 0)
	answers := map[string]http.HandlerFunc{
		"counted": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") },
		"fields": func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h["X-Many"] = []string{"a", "b", ""}
			h["X-odd_name"] = []string{"c"}
			h["Set-Cookie"] = []string{"a=1", "b=2"}
			h["Content-Type"] = nil
			io.WriteString(w, "hello")
		},
		"hop by hop": func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Connection", "X-Hop") // with close in it, net/http would hand X-Hop on
			for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Upgrade"} {
				h.Set(name, "x")
			}
			io.WriteString(w, "hello")
		},
		"in pieces": func(w http.ResponseWriter, r *http.Request) {
			for i := range 5 {
				fmt.Fprintln(w, i, strings.Repeat("x", i*3000))
				http.NewResponseController(w).Flush()
			}
		},
		"large":   func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1<<20)) },
		"nothing": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) },
		"not modified": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		},
		"announced trailer": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Trailer"] = []string{"X-Sum", "X-Never"}
			io.WriteString(w, "hello")
			w.Header().Set("X-Sum", "5")
		},
		"unannounced trailer": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
			http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Sum", "5")
		},
		"trailer and no body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			w.Header().Set("X-Sum", "0")
		},
		"interim": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
			w.Header().Set("Link", "</b>")
			w.WriteHeader(103)
			w.Header().Del("Link")
			io.WriteString(w, "hello")
		},
		"cut off, counted": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"cut off, in pieces": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	}
	requests := map[string]func(*http.Request){
		"GET":                    func(r *http.Request) {},
		"HEAD":                   func(r *http.Request) { r.Method = "HEAD" },
		"POST":                   func(r *http.Request) { withText(r, "POST", 5) },
		"POST of unknown length": func(r *http.Request) { withText(r, "POST", -1) },
		"DELETE with a body":     func(r *http.Request) { withText(r, "DELETE", 5) },
		"empty POST":             func(r *http.Request) { r.Method = "POST" },
		"fields": func(r *http.Request) {
			r.Header["X-Many"] = []string{"a", "b", ""}
			r.Header["Te"] = []string{"trailers, gzip"}
			r.Header["Proxy-Authorization"] = []string{"x"}
			r.Header["User-Agent"] = []string{""}
			r.URL.RawQuery = "a=b&a=c"
		},
		"hop by hop": func(r *http.Request) {
			r.Header["X-Hop"] = []string{"x"}
			r.Header["Keep-Alive"] = []string{"x"}
			r.Header["Connection"] = []string{"X-Hop, Keep-Alive"}
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			var saw *carried
			up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				saw.Asked = fmt.Sprintf("%s %s %s %d %v %q", r.Method, r.Host, r.RequestURI, r.ContentLength, r.TransferEncoding, body)
				saw.AskedHeader = r.Header
				answer(w, r)
			})
			target, err := url.Parse(up.URL)
			if err != nil {
				t.Fatal(err)
			}
			for _, h2 := range []bool{false, true} {
				scheme, changes := "http", []change{withPolicy(allowAll)}
				if h2 {
					scheme, changes = "https", append(changes, overHTTP2)
				}
				w := newWorld(t, []access.Route{routeTo(scheme+"://app.example", up)}, changes...)
				standard := &http.Transport{DisableCompression: true}
				t.Cleanup(standard.CloseIdleConnections)
				plain := httptest.NewUnstartedServer(&httputil.ReverseProxy{
					Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: standard, ErrorLog: quiet})
				plain.EnableHTTP2 = h2
				plain.Config.ErrorLog = quiet
				plain.TLS = w.server.TLS
				if h2 {
					plain.StartTLS()
				} else {
					plain.Start()
				}
				t.Cleanup(plain.Close)
				bare := &world{t: t, server: plain, secure: h2, h2: h2}
				for kind, edit := range requests {
					if h2 && kind == "hop by hop" {
						continue // no client may send that
					}
					var got [2]carried
					// The standard client may lose a connection that the upstream closes.
					for try := 0; try == 0 || try < 3 && !reflect.DeepEqual(got[0], got[1]); try++ {
						for i, through := range []*world{w, bare} {
							c := carried{}
							saw = &c
							standard.CloseIdleConnections()
							carry(t, through, scheme, edit, &c)
							for _, name := range ours {
								delete(c.AskedHeader, name)
								delete(c.Header, name)
							}
							got[i] = c
						}
					}
					if !reflect.DeepEqual(got[0], got[1]) {
						t.Errorf("%s, HTTP/2 %v:\nwe      %+v\nthey    %+v", kind, h2, cut(got[0]), cut(got[1]))
					}
				}
			}
		})
	}
}

func withText(r *http.Request, method string, length int64) {
	r.Method, r.Body, r.ContentLength = method, io.NopCloser(strings.NewReader("hello")), length
}

// cut shortens what would fill the screen.
func cut(c carried) carried {
	c.Body = c.Body[:min(len(c.Body), 100)]
	return c
}

func carry(t *testing.T, w *world, scheme string, edit func(*http.Request), c *carried) {
	t.Helper()
	req, err := http.NewRequest("GET", scheme+"://app.example/a%2Cb", nil)
	if err != nil {
		t.Fatal(err)
	}
	edit(req)
	req = req.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			c.Interim = append(c.Interim, fmt.Sprint(code, h["Link"]))
			return nil
		}}))
	res, err := w.transport().RoundTrip(req)
	if err != nil {
		c.Broken = true
		return
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	c.Status, c.Header, c.Trailer, c.Body, c.Length, c.Broken = res.StatusCode, res.Header, res.Trailer, string(body), res.ContentLength, err != nil
}

// An interim answer is for a visitor who knows what that is: over HTTP/1.0 it would
// be taken for the answer. Nothing of it is about the connection to the upstream.
func TestInterimAnswersAreForThoseWhoKnowThem(t *testing.T) {
	up := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Link"], h["Connection"], h["X-Hop"], h["Keep-Alive"] = []string{"</a>"}, []string{"X-Hop"}, []string{"x"}, []string{"timeout=5"}
		w.WriteHeader(103)
		clear(h)
		io.WriteString(w, "hello")
	})
	for _, client := range []string{"", standardClient} {
		route := routeTo("http://app.example", up)
		route.Upstream.Client = client
		w := newWorld(t, []access.Route{route}, withPolicy(allowAll))
		if res, body := w.raw("GET / HTTP/1.0\r\nHost: app.example\r\n\r\n"); res.StatusCode != 200 || body != "hello" {
			t.Errorf("client %q, over HTTP/1.0: %d %q", client, res.StatusCode, body)
		}
		res, _ := w.raw("GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n")
		if want := (http.Header{"Link": {"</a>"}}); res.StatusCode != 103 || !reflect.DeepEqual(res.Header, want) {
			t.Errorf("client %q: %d %v", client, res.StatusCode, res.Header)
		}
	}
}

// An upstream that gives up in the middle of an upload is the one that broke it,
// whatever the visitor was about to send.
func TestUpstreamThatBreaksOffAnUpload(t *testing.T) {
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.CopyN(io.Discard, r.Body, 200<<10)
		panic(http.ErrAbortHandler)
	}))
	up.Config.Protocols = new(http.Protocols)
	up.Config.Protocols.SetHTTP1(true)
	up.Config.Protocols.SetUnencryptedHTTP2(true)
	up.Config.ErrorLog = log.New(io.Discard, "", 0)
	up.Start()
	t.Cleanup(up.Close)
	for _, through := range []struct{ scheme, client string }{{"http", ""}, {"http", standardClient}, {"h2c", ""}} {
		w := newWorld(t, []access.Route{{ID: "app", From: "http://app.example", To: []string{through.scheme + "://" + up.Listener.Addr().String()},
			Upstream: access.Upstream{Client: through.client}}}, withPolicy(allowAll))
		for range 50 {
			req, err := http.NewRequest("POST", "http://app.example/", bytes.NewReader(make([]byte, 1<<20)))
			if err != nil {
				t.Fatal(err)
			}
			if res, err := w.transport().RoundTrip(req); err == nil { // else the rest could not be sent
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if e := w.rec.event(t); e.Response.Reason != access.UpstreamBroken || e.Response.Status != 502 {
				t.Fatalf("%s, client %q: %+v", through.scheme, through.client, e.Response)
			}
		}
	}
}

// A visitor who takes no interim answers holds up nobody else whose request goes over
// the same connection to the upstream.
func TestVisitorWhoTakesNoInterimAnswers(t *testing.T) {
	sent := make(chan struct{})
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hints" {
			w.Header().Set("Link", strings.Repeat("a", 200<<10))
			for range 60 { // more than the buffers of a connection hold
				w.WriteHeader(103)
			}
			close(sent)
			<-r.Context().Done()
		}
		io.WriteString(w, "hello")
	}))
	up.Config.Protocols = new(http.Protocols)
	up.Config.Protocols.SetUnencryptedHTTP2(true)
	up.Start()
	t.Cleanup(up.Close)
	w := newWorld(t, []access.Route{{ID: "app", From: "http://app.example", To: []string{"h2c://" + up.Listener.Addr().String()}}}, withPolicy(allowAll))
	slow, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	io.WriteString(slow, "GET /hints HTTP/1.1\r\nHost: app.example\r\n\r\n")
	select {
	case <-sent:
	case <-time.After(time.Minute):
		t.Fatal("the upstream cannot send its interim answers")
	}
	if _, body := w.ask("GET", "http://app.example/"); body != "hello" {
		t.Errorf("%q", body)
	}
}
