package main

import (
	"context"
	"encoding/json"
	"html/template"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The sample applications know nothing of Doorward: they are what people
// already have, plain HTTP servers that read who is there from a header.

// serveApp starts one application on a free loopback port and returns its URL.
func serveApp(ctx context.Context, handler http.Handler) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	go server.Serve(listener)
	return "http://" + listener.Addr().String(), nil
}

// echo answers with the request as it arrived, so that one can see what an
// application behind Doorward is told and what is kept from it.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, "reading the body: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	out.Encode(map[string]any{
		"method":   r.Method,
		"host":     r.Host,
		"url":      r.URL.String(),
		"protocol": r.Proto,
		"headers":  r.Header,
		"body":     string(body),
	})
}

type appPage struct {
	Name, Tagline string
	User, Groups  string
	Rows          [][2]string
	Links         [][2]string
}

var appTemplate = template.Must(template.New("app").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{.Name}}</title><style>
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}
h1{margin-bottom:0}.tag{opacity:.7;margin-top:0}table{border-collapse:collapse;width:100%}
td{padding:.45rem .2rem;border-bottom:1px solid color-mix(in srgb,currentColor 20%,transparent)}td:last-child{text-align:right}
nav a{margin-right:1rem}
</style></head><body><main><h1>{{.Name}}</h1><p class="tag">{{.Tagline}}</p>
{{if .User}}<p>Hello <b>{{.User}}</b>{{if .Groups}} ({{.Groups}}){{end}}.</p>{{end}}
{{if .Rows}}<table>{{range .Rows}}<tr><td>{{index . 0}}</td><td>{{index . 1}}</td></tr>{{end}}</table>{{end}}
<nav><p>{{range .Links}}<a href="{{index . 1}}">{{index . 0}}</a>{{end}}</p></nav></main></body></html>
`))

// site returns an application of one page.
func site(page appPage) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := page
		shown.User = r.Header.Get("X-Forwarded-Email")
		shown.Groups = strings.ReplaceAll(r.Header.Get("X-Forwarded-Groups"), ",", ", ")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		appTemplate.Execute(w, shown)
	})
}

func wiki(links [][2]string) http.Handler {
	return site(appPage{
		Name: "Wiki", Tagline: "For staff on a managed device.", Links: links,
		Rows: [][2]string{{"How we work", "updated today"}, {"On call", "updated yesterday"}, {"Lunch", "updated never"}},
	})
}

func billing(links [][2]string) http.Handler {
	return site(appPage{
		Name: "Billing", Tagline: "For finance, on a healthy device, after a second factor.", Links: links,
		Rows: [][2]string{{"Invoice 1001", "€ 1,200.00"}, {"Invoice 1002", "€ 87.50"}, {"Invoice 1003", "€ 14,000.00"}},
	})
}

func help() http.Handler {
	return site(appPage{
		Name: "Help desk", Tagline: "Open to everyone, also without login: a public rule.",
		Rows: [][2]string{
			{"Device is not managed", "enrol it in Settings, Work account"},
			{"Disk is not encrypted", "turn on FileVault or BitLocker"},
			{"Facts are too old", "open the company portal and press Sync"},
		},
	})
}
