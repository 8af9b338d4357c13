package proxy

import (
	"testing"

	"github.com/doorward/doorward/internal/access"
)

func TestRedirectRoutes(t *testing.T) {
	redirect := func(id, from string, c access.Redirect) access.Route {
		return access.Route{ID: id, From: from, Redirect: c, AmbiguousPaths: []string{"empty_segment", "encoded_slash"}}
	}
	w := newWorld(t, []access.Route{
		redirect("one", "http://one.example", access.Redirect{To: "https://new.example"}),
		redirect("page", "http://page.example", access.Redirect{To: "https://new.example/a?b=c#d", Status: 301}),
		redirect("kept", "http://kept.example/old", access.Redirect{To: "https://New.example:443/wiki/", Status: 308, KeepPath: true}),
		redirect("path", "http://path.example/old", access.Redirect{To: "/new", Status: 307, KeepPath: true}),
		redirect("root", "http://root.example/old", access.Redirect{To: "/", KeepPath: true}),
	}, withPolicy(func(req *access.Request) access.Decision {
		if req.Path == "/secret" {
			return access.Decision{Reason: access.NotAllowed}
		}
		return allowAll(req)
	}))
	for _, c := range []struct {
		method, target string
		status         int
		location       string
	}{
		{"GET", "http://one.example/x?y=z", 302, "https://new.example/"},
		{"HEAD", "http://one.example/x", 302, "https://new.example/"},
		{"POST", "http://page.example/x?y=z", 301, "https://new.example/a?b=c#d"},
		{"GET", "http://kept.example/old/a%20b?y=z", 308, "https://new.example/wiki/a%20b?y=z"},
		{"GET", "http://kept.example/old", 308, "https://new.example/wiki/"},
		{"GET", "http://kept.example/old//evil.example", 308, "https://new.example/wiki//evil.example"},
		{"GET", "http://kept.example/old%2Fx", 400, ""},
		{"GET", "http://path.example/old/x", 307, "http://path.example/new/x"},
		{"GET", "http://root.example/old//evil.example", 302, "http://root.example//evil.example"},
		{"GET", "http://one.example/secret", 403, ""},
	} {
		res, _ := w.ask(c.method, c.target)
		e := w.rec.event(t)
		if res.StatusCode != c.status || res.Header.Get("Location") != c.location || e.Response.Status != c.status || e.Response.Upstream != "" {
			t.Errorf("%s %s: %s %q, recorded %+v", c.method, c.target, res.Status, res.Header.Get("Location"), e.Response)
		}
	}
}

// A fixed answer is as open as policy says, like every other one.
func TestFixedAnswers(t *testing.T) {
	closed := access.Route{ID: "closed", From: "http://app.example/shop", Respond: access.Respond{Status: 503, Body: "<h1>Back at noon</h1>", ContentType: "text/html; charset=utf-8"},
		ResponseHeaders: access.ResponseHeaders{Set: map[string]string{"Retry-After": "3600", "Cache-Control": "max-age=60"}}}
	robots := access.Route{ID: "robots", From: "http://app.example/robots.txt", Respond: access.Respond{Status: 200, Body: "User-agent: *\nDisallow: /\n"}}
	empty := access.Route{ID: "empty", From: "http://app.example/empty", Respond: access.Respond{Status: 204}}
	w := newWorld(t, []access.Route{closed, robots, empty}, withPolicy(func(req *access.Request) access.Decision {
		if req.Route == "robots" || req.Route == "empty" {
			return access.Decision{Outcome: access.Allow, Reason: access.PublicRoute, Rule: "public/all"}
		}
		return loginFirst(req)
	}))
	res, body := w.ask("GET", "http://app.example/robots.txt")
	if h := res.Header; res.StatusCode != 200 || body != robots.Respond.Body || h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s %q %v", res.Status, body, res.Header)
	}
	if e := w.rec.event(t); e.Response.BytesOut != int64(len(body)) || e.Decision.Rule != "public/all" {
		t.Errorf("%+v", e.Response)
	}
	if res, body := w.ask("HEAD", "http://app.example/robots.txt"); res.StatusCode != 200 || body != "" || res.ContentLength != int64(len(robots.Respond.Body)) {
		t.Errorf("HEAD: %s %q %d", res.Status, body, res.ContentLength)
	}
	if res, body := w.ask("GET", "http://app.example/empty"); res.StatusCode != 204 || body != "" || res.Header.Get("Content-Type") != "" {
		t.Errorf("empty: %s %q %v", res.Status, body, res.Header)
	}
	if res, _ := w.ask("GET", "http://app.example/shop"); res.StatusCode != 401 {
		t.Errorf("nobody: %s", res.Status)
	}
	for _, method := range []string{"GET", "POST", "PROPFIND"} {
		res, body := w.ask(method, "http://app.example/shop/cart", "Cookie", asAlice)
		if h := res.Header; res.StatusCode != 503 || body != closed.Respond.Body || h.Get("Retry-After") != "3600" || h.Get("Cache-Control") != "max-age=60" || h.Get("Content-Type") != closed.Respond.ContentType {
			t.Errorf("%s: %s %q %v", method, res.Status, body, h)
		}
	}
	var apps []string
	for _, app := range w.snapshot.Routes.apps {
		apps = append(apps, app.title)
	}
	if len(apps) > 0 {
		t.Errorf("the portal lists %q", apps)
	}
}

// Each fault is reported at its key, and alone.
func TestShapeIsChecked(t *testing.T) {
	to := []string{"http://127.0.0.1:1"}
	base := access.Route{ID: "x", From: "https://b.example/wiki", To: to}
	alone := access.Route{ID: "x", From: "https://b.example/wiki"}
	edit := func(base access.Route, edit func(*access.Route)) access.Route { edit(&base); return base }
	forwarded := func(f func(*access.Route)) access.Route { return edit(base, f) }
	redirect := func(c access.Redirect) access.Route { return edit(alone, func(r *access.Route) { r.Redirect = c }) }
	respond := func(c access.Respond) access.Route { return edit(alone, func(r *access.Route) { r.Respond = c }) }
	headers := func(c access.ResponseHeaders) access.Route {
		return forwarded(func(r *access.Route) { r.ResponseHeaders = c })
	}
	set := func(name, value string) access.Route {
		return headers(access.ResponseHeaders{Set: map[string]string{name: value}})
	}
	withCORS := func(c access.CORS) access.Route { return forwarded(func(r *access.Route) { r.CORS = c }) }
	for name, c := range map[string]struct {
		route access.Route
		at    string
	}{
		"another prefix":         {forwarded(func(r *access.Route) { r.StripPrefix = "/other" }), "strip_prefix"},
		"half a segment":         {forwarded(func(r *access.Route) { r.StripPrefix = "/wi" }), "strip_prefix"},
		"more than from":         {forwarded(func(r *access.Route) { r.StripPrefix = "/wiki/a" }), "strip_prefix"},
		"a slash at the end":     {forwarded(func(r *access.Route) { r.StripPrefix = "/wiki/" }), "strip_prefix"},
		"no slash in front":      {forwarded(func(r *access.Route) { r.AddPrefix = "v2" }), "add_prefix"},
		"only a slash":           {forwarded(func(r *access.Route) { r.AddPrefix = "/" }), "add_prefix"},
		"dots":                   {forwarded(func(r *access.Route) { r.AddPrefix = "/a/../b" }), "add_prefix"},
		"an ambiguous prefix":    {forwarded(func(r *access.Route) { r.AddPrefix = "/a%2fb" }), "add_prefix"},
		"a host with a path":     {forwarded(func(r *access.Route) { r.Host = "inner/x" }), "host"},
		"two hosts":              {forwarded(func(r *access.Route) { r.Host, r.PreserveHost = "inner", true }), "host"},
		"no number of bytes":     {forwarded(func(r *access.Route) { r.MaxBodyBytes = -2 }), "max_body_bytes"},
		"redirect and to":        {forwarded(func(r *access.Route) { r.Redirect = access.Redirect{To: "https://a.example"} }), "to"},
		"redirect without to":    {redirect(access.Redirect{Status: 301}), "redirect.to"},
		"redirect to a word":     {redirect(access.Redirect{To: "new.example"}), "redirect.to"},
		"redirect to a script":   {redirect(access.Redirect{To: "javascript:alert(1)"}), "redirect.to"},
		"redirect to two hosts":  {redirect(access.Redirect{To: "//new.example/"}), "redirect.to"},
		"redirect with a user":   {redirect(access.Redirect{To: "https://me@new.example/"}), "redirect.to"},
		"redirect with a line":   {redirect(access.Redirect{To: "https://new.example/\r\nX: y"}), "redirect.to"},
		"redirect to a bad host": {redirect(access.Redirect{To: "https://new_.example:0/"}), "redirect.to"},
		"redirect to itself":     {redirect(access.Redirect{To: "https://b.example/wiki/x"}), "redirect.to"},
		"by a path":              {redirect(access.Redirect{To: "/wiki"}), "redirect.to"},
		"redirect with 200":      {redirect(access.Redirect{To: "https://a.example", Status: 200}), "redirect.status"},
		"the path in a query":    {redirect(access.Redirect{To: "https://a.example/?to=", KeepPath: true}), "redirect.to"},
		"no status":              {respond(access.Respond{Body: "x"}), "respond.status"},
		"a status of a redirect": {respond(access.Respond{Status: 302}), "respond.status"},
		"a status that asks":     {respond(access.Respond{Status: 401}), "respond.status"},
		"an interim status":      {respond(access.Respond{Status: 103}), "respond.status"},
		"nothing with a body":    {respond(access.Respond{Status: 204, Body: "x"}), "respond.body"},
		"a book":                 {respond(access.Respond{Status: 200, Body: string(make([]byte, maxRespondBytes+1))}), "respond.body"},
		"no media type":          {respond(access.Respond{Status: 200, ContentType: "text/html\r\nX: y"}), "respond.content_type"},
		"two answers": {edit(alone, func(r *access.Route) {
			r.Respond, r.Redirect = access.Respond{Status: 200}, access.Redirect{To: "https://a.example"}
		}), "respond"},
		"an answer with WebSocket":   {edit(alone, func(r *access.Route) { r.Respond, r.WebSocket = access.Respond{Status: 200}, true }), "websocket"},
		"nobody forwards":            {edit(alone, func(r *access.Route) { r.StripPrefix = "/wiki" }), "strip_prefix"},
		"a front end answers":        {edit(alone, func(r *access.Route) { r.ResponseHeaders.Remove = []string{"Server"} }), "response_headers"},
		"a cookie":                   {set("set-cookie", "__Host-doorward=x"), "response_headers.set.set-cookie"},
		"our own header":             {set("Doorward-X", "x"), "response_headers.set.Doorward-X"},
		"a framing header":           {set("Content-Length", "1"), "response_headers.set.Content-Length"},
		"HSTS as a header":           {set("Strict-Transport-Security", "max-age=1"), "response_headers.set.Strict-Transport-Security"},
		"CORS as a header":           {set("Access-Control-Allow-Origin", "*"), "response_headers.set.Access-Control-Allow-Origin"},
		"two lines":                  {set("X-A", "a\r\nX-B: b"), "response_headers.set.X-A"},
		"an empty value":             {set("X-A", ""), "response_headers.set.X-A"},
		"a blank name":               {set("X A", "x"), "response_headers.set.X A"},
		"removed framing":            {headers(access.ResponseHeaders{Remove: []string{"Transfer-Encoding"}}), "response_headers.remove[0]"},
		"edited twice":               {headers(access.ResponseHeaders{Remove: []string{"x-a"}, Add: map[string]string{"X-A": "x"}}), "response_headers.add.X-A"},
		"everybody with credentials": {withCORS(access.CORS{Origins: []string{"*"}, Credentials: true}), "cors.origins"},
		"everybody and somebody":     {withCORS(access.CORS{Origins: []string{"*", "https://a.example"}}), "cors.origins"},
		"nobody":                     {withCORS(access.CORS{Credentials: true}), "cors.origins"},
		"null":                       {withCORS(access.CORS{Origins: []string{"null"}}), "cors.origins[0]"},
		"an origin with a path":      {withCORS(access.CORS{Origins: []string{"https://a.example/"}}), "cors.origins[0]"},
		"a star in the middle":       {withCORS(access.CORS{Origins: []string{"https://a.*.example"}}), "cors.origins[0]"},
		"a whole domain of names":    {withCORS(access.CORS{Origins: []string{"https://*.example"}}), "cors.origins[0]"},
		"a small method":             {withCORS(access.CORS{Origins: []string{"https://a.example"}, Methods: []string{"get"}}), "cors.methods[0]"},
		"every method":               {withCORS(access.CORS{Origins: []string{"https://a.example"}, Methods: []string{"*"}}), "cors.methods[0]"},
		"every header":               {withCORS(access.CORS{Origins: []string{"https://a.example"}, Headers: []string{"*"}}), "cors.headers[0]"},
		"both kinds of preflight": {forwarded(func(r *access.Route) {
			r.Preflight, r.CORS = true, access.CORS{Origins: []string{"https://a.example"}}
		}), "preflight"},
		"origins without WebSocket": {forwarded(func(r *access.Route) { r.WebSocketOrigins = []string{"https://a.example"} }), "websocket_origins"},
		"any page's WebSockets":     {forwarded(func(r *access.Route) { r.WebSocket, r.WebSocketOrigins = true, []string{"*"} }), "websocket_origins[0]"},
		"HSTS by http":              {access.Route{ID: "x", From: "http://b.example", To: to, HSTS: access.HSTS{Mode: "forget"}}, "hsts"},
		"HSTS in no way":            {forwarded(func(r *access.Route) { r.HSTS.Mode = "yes" }), "hsts.mode"},
		"forgetting for a year":     {forwarded(func(r *access.Route) { r.HSTS = access.HSTS{Mode: "forget", IncludeSubdomains: true} }), "hsts"},
		"a tunnel":                  {access.Route{ID: "x", From: "tcp://b.example:22", To: []string{"tcp://10.0.0.1:22"}, MaxBodyBytes: 1}, "max_body_bytes"},
	} {
		if _, faults := NewTable([]access.Route{c.route}); len(faults) != 1 || faults[0].Path != "routes[0]."+c.at || faults[0].Text == "" || faults[0].Cure == "" {
			t.Errorf("%s: %+v", name, faults)
		}
	}
	if _, faults := NewTable([]access.Route{base, {ID: "root", From: "https://b.example", Redirect: access.Redirect{To: "/wiki/start"}}, {ID: "all", From: "https://*.b.example", Redirect: access.Redirect{To: "https://b.example/"}}}); len(faults) > 0 {
		t.Errorf("a redirect to another route: %+v", faults)
	}
	if _, faults := NewTable([]access.Route{base, {ID: "all", From: "https://*.b.example", Redirect: access.Redirect{To: "/x"}}}); len(faults) != 1 || faults[0].Path != "routes[1].redirect.to" {
		t.Errorf("a redirect of many hosts: %+v", faults)
	}
	saysOne := edit(base, func(r *access.Route) { r.HSTS.Mode = "forget" })
	saysOther := access.Route{ID: "y", From: "https://b.example", To: to, HSTS: access.HSTS{Mode: "upstream"}}
	if _, faults := NewTable([]access.Route{saysOne, saysOther}); len(faults) != 1 || faults[0].Path != "routes[1].hsts" {
		t.Errorf("%+v", faults)
	}
}
