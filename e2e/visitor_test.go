package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// visitor is a person with a cookie jar who follows links and fills in forms,
// in the way of a browser without scripts.
type visitor struct {
	t      testing.TB
	client *http.Client
	// header is added to every request.
	header http.Header
}

// page is what a visitor sees.
type page struct {
	status int
	url    *url.URL
	header http.Header
	body   string
}

func newVisitor(t testing.TB) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: dialLocalhost}
	t.Cleanup(transport.CloseIdleConnections)
	return &visitor{
		t:      t,
		client: &http.Client{Jar: jar, Transport: transport, Timeout: patience},
		header: http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Accept": {"text/html"}},
	}
}

// dialLocalhost resolves *.localhost as browsers do (RFC 6761 §6.3).
func dialLocalhost(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(host, ".localhost") {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, address)
}

// once sends one request and follows no redirect.
func (v *visitor) once(method, target string, header http.Header, body io.Reader) page {
	v.t.Helper()
	client := *v.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return v.send(&client, method, target, header, body)
}

// open follows redirects to the page at their end.
func (v *visitor) open(target string) page {
	v.t.Helper()
	return v.send(v.client, http.MethodGet, target, v.header, nil)
}

func (v *visitor) send(client *http.Client, method, target string, header http.Header, body io.Reader) page {
	v.t.Helper()
	req, err := http.NewRequest(method, target, body)
	if err != nil {
		v.t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return page{status: resp.StatusCode, url: resp.Request.URL, header: resp.Header, body: string(text)}
}

// submit fills in the first form of a page and sends it.
func (v *visitor) submit(p page, fields map[string]string) page {
	v.t.Helper()
	action, values := form(v.t, p)
	for name, value := range fields {
		if _, there := values[name]; !there {
			v.t.Fatalf("the form at %s has no field %q:\n%s", p.url, name, p.body)
		}
		values.Set(name, value)
	}
	header := v.header.Clone()
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	header.Set("Origin", p.url.Scheme+"://"+p.url.Host)
	return v.send(v.client, http.MethodPost, action, header, strings.NewReader(values.Encode()))
}

// login opens an address, logs in on the way, and returns where that ends. A
// second factor is confirmed if the provider asks for one.
func (v *visitor) login(target, name string) page {
	v.t.Helper()
	p := v.open(target)
	if strings.Contains(p.body, `name="username"`) {
		p = v.submit(p, map[string]string{"username": name, "password": "demo"})
	}
	return v.confirm(p)
}

// confirm passes the provider's page for the second factor, if it is there.
func (v *visitor) confirm(p page) page {
	v.t.Helper()
	if strings.Contains(p.body, `name="otp"`) {
		p = v.submit(p, nil)
	}
	return p
}

// form returns the target and the fields of the first form on a page.
func form(t testing.TB, p page) (string, url.Values) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(p.body))
	if err != nil {
		t.Fatal(err)
	}
	values, action, found := url.Values{}, p.url, false
	for node := range doc.Descendants() {
		switch {
		case node.Type != html.ElementNode:
		case node.Data == "form" && !found:
			found = true
			if target := attribute(node, "action"); target != "" {
				if action, err = p.url.Parse(target); err != nil {
					t.Fatal(err)
				}
			}
		case node.Data == "input" && found:
			if name := attribute(node, "name"); name != "" {
				values.Set(name, attribute(node, "value"))
			}
		}
	}
	if !found {
		t.Fatalf("no form at %s (%d):\n%s", p.url, p.status, p.body)
	}
	return action.String(), values
}

func attribute(node *html.Node, name string) string {
	for _, a := range node.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// text returns what a page says, without markup and with single blanks.
func (p page) text(t testing.TB) string {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(p.body))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for node := range doc.Descendants() {
		if node.Type == html.TextNode && node.Parent.Data != "style" {
			out.WriteString(node.Data + " ")
		}
	}
	return strings.Join(strings.Fields(out.String()), " ")
}

// says fails the story unless the page has this status and all these words.
func (p page) says(t testing.TB, status int, words ...string) {
	t.Helper()
	if p.status != status {
		t.Errorf("%s answered %d, want %d:\n%s", p.url, p.status, status, p.body)
		return
	}
	text := p.text(t)
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s does not say %q but:\n%s", p.url, word, text)
		}
	}
}

// json decodes a page that is a JSON object.
func (p page) json(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.body), into); err != nil {
		t.Fatalf("%s is no JSON: %v\n%s", p.url, err, p.body)
	}
}
