package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the lane serves itself is answered as net/http answers it, and everything
// else arrives there with every byte.
func TestLane(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/slow" {
			time.Sleep(3 * watchAfter) // longer than the watch waits
		}
		fmt.Fprintf(w, "%s %s %s %q %q %s", r.Method, r.Host, r.URL, r.Header["X-A"], body, strings.Repeat("x", len(r.URL.Path)*2000))
	})
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	standard, front := listen(), listen()
	others := &handedOver{address: front.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	t.Cleanup(func() { others.Close() })
	go http.Serve(standard, handler)
	go http.Serve(others, handler)
	go (&lane{front, handler, others}).serve(context.Background())

	ask := func(address, text string) string {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		body := ""
		for _, line := range strings.Split(string(answer), "\r\n") {
			if !strings.HasPrefix(line, "Date: ") && !strings.HasPrefix(line, "Content-Type: ") {
				body += line + "\n"
			}
		}
		return body
	}
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"HEAD /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n",
		"GET /slow?q=1 HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
		"GET /longer/than/the/room HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
		"GET /",
	} {
		got, want := ask(front.Addr().String(), text), ask(standard.Addr().String(), text)
		framed := strings.HasPrefix(text, "GET /longer") // in other pieces: only the status is the same
		if framed && got[:15] != want[:15] || !framed && lines(got) != lines(want) {
			t.Errorf("%q:\n%.300s\nwant\n%.300s", text, got, want)
		}
	}
}

// lines brings the fields of an answer, which come in any order, into one.
func lines(answer string) string {
	return strings.Join(slices.Sorted(strings.SplitSeq(answer, "\n")), "\n")
}
