package lane

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// handlers are all kinds of answers. What they return goes into the comparison.
var handlers = map[string]func(w http.ResponseWriter) any{
	"nothing":    func(http.ResponseWriter) any { return nil },
	"a few":      func(w http.ResponseWriter) any { return wrote(w.Write([]byte("hello"))) },
	"empty":      func(w http.ResponseWriter) any { return wrote(w.Write(nil)) },
	"a status":   func(w http.ResponseWriter) any { w.WriteHeader(418); return nil },
	"no text":    func(w http.ResponseWriter) any { w.WriteHeader(599); return wrote(w.Write([]byte("x"))) },
	"not found":  func(w http.ResponseWriter) any { http.Error(w, "gone", http.StatusNotFound); return nil },
	"HTML":       func(w http.ResponseWriter) any { return wrote(io.WriteString(w, "<!doctype html><p>")) },
	"as binary":  func(w http.ResponseWriter) any { return wrote(w.Write([]byte("\x00\x01\x02"))) },
	"2048 bytes": func(w http.ResponseWriter) any { return wrote(w.Write(long(2048))) },
	"2049 bytes": func(w http.ResponseWriter) any { return wrote(w.Write(long(2049))) },
	"100 KiB":    func(w http.ResponseWriter) any { return wrote(w.Write(long(100 << 10))) },
	"pieces": func(w http.ResponseWriter) any {
		for n := range 500 {
			w.Write(long(n))
		}
		return nil
	},
	"a type of its own": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Type", "text/x")
		return wrote(io.WriteString(w, "<html>"))
	},
	"no type": func(w http.ResponseWriter) any {
		w.Header()["Content-Type"] = nil
		return wrote(io.WriteString(w, "<html>"))
	},
	"no date": func(w http.ResponseWriter) any {
		w.Header()["Date"] = nil
		return wrote(io.WriteString(w, "x"))
	},
	"encoded": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Encoding", "br")
		return wrote(io.WriteString(w, "<html>"))
	},
	"type of the whole beginning": func(w http.ResponseWriter) any {
		io.WriteString(w, "<ht")
		return wrote(io.WriteString(w, "ml>"+string(long(5000))))
	},
	"type of what is flushed": func(w http.ResponseWriter) any {
		io.WriteString(w, "<ht")
		w.(http.Flusher).Flush()
		return wrote(io.WriteString(w, "ml>"))
	},
	"a length": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "5")
		return wrote(io.WriteString(w, "hello"))
	},
	"a length and a type": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "100000")
		w.Header().Set("Content-Type", "text/x")
		a, b := wrote(w.Write(long(1))), wrote(w.Write(long(9999)))
		return fmt.Sprint(a, b, wrote(w.Write(long(90000))))
	},
	"length 0": func(w http.ResponseWriter) any { w.Header().Set("Content-Length", "0"); return nil },
	"too much": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "5")
		a := wrote(io.WriteString(w, "hello"))
		return fmt.Sprint(a, wrote(io.WriteString(w, "!")))
	},
	"too little": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "5")
		return wrote(io.WriteString(w, "hell"))
	},
	"nothing of a length": func(w http.ResponseWriter) any { w.Header().Set("Content-Length", "5"); return nil },
	"no length at all": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Type", "text/x")
		w.Header().Set("Content-Length", "five")
		return wrote(io.WriteString(w, "hello"))
	},
	"204": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusNoContent)
		return wrote(io.WriteString(w, "hello"))
	},
	"304": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "5")
		w.Header().Set("Content-Type", "text/x")
		w.Header().Set("Etag", "x")
		w.WriteHeader(http.StatusNotModified)
		return wrote(io.WriteString(w, "hello"))
	},
	"close": func(w http.ResponseWriter) any {
		w.Header().Set("Connection", "close")
		return wrote(io.WriteString(w, "hello"))
	},
	"close among others": func(w http.ResponseWriter) any {
		w.Header().Set("Connection", "X-A, close")
		return wrote(io.WriteString(w, "hello"))
	},
	"keep-alive": func(w http.ResponseWriter) any {
		w.Header().Set("Connection", "keep-alive")
		return wrote(io.WriteString(w, "hello"))
	},
	"flushed at once": func(w http.ResponseWriter) any {
		err := http.NewResponseController(w).Flush()
		return fmt.Sprint(err, wrote(io.WriteString(w, "hello")))
	},
	"flushed, with a length": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "5")
		http.NewResponseController(w).Flush()
		return wrote(io.WriteString(w, "hello"))
	},
	"flushed, and nothing more": func(w http.ResponseWriter) any { w.(http.Flusher).Flush(); return nil },
	"a stream": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", n)
			w.(http.Flusher).Flush()
		}
		return nil
	},
	"chunked by name": func(w http.ResponseWriter) any {
		w.Header().Set("Transfer-Encoding", "chunked")
		return wrote(io.WriteString(w, "hello"))
	},
	"chunked and a length": func(w http.ResponseWriter) any {
		w.Header().Set("Transfer-Encoding", "chunked")
		w.Header().Set("Content-Length", "5")
		return wrote(io.WriteString(w, "hello"))
	},
	"identity": func(w http.ResponseWriter) any {
		w.Header().Set("Transfer-Encoding", "identity")
		return wrote(io.WriteString(w, "hello"))
	},
	"identity and a length": func(w http.ResponseWriter) any {
		w.Header().Set("Transfer-Encoding", "identity")
		w.Header().Set("Content-Length", "5")
		return wrote(io.WriteString(w, "hello"))
	},
	"trailers": func(w http.ResponseWriter) any {
		w.Header().Set("Trailer", "X-A, X-B,")
		w.Header().Add("Trailer", "Content-Length")
		io.WriteString(w, "hello")
		w.Header().Set("X-A", "1")
		w.Header().Set("X-B", "2")
		return nil
	},
	"trailers that come as a surprise": func(w http.ResponseWriter) any {
		io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"X-A", "1")
		w.Header().Set(http.TrailerPrefix+"Bad name", "1")
		return nil
	},
	"trailers said in time": func(w http.ResponseWriter) any {
		w.Header().Set(http.TrailerPrefix+"X-A", "1")
		return wrote(io.WriteString(w, "hello"))
	},
	"trailers nobody expects": func(w http.ResponseWriter) any {
		io.WriteString(w, "hello")
		w.Header().Set(http.TrailerPrefix+"X-A", "1")
		return nil
	},
	"an early hint": func(w http.ResponseWriter) any {
		w.Header().Set("Link", "</a>")
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-A", "1")
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusOK)
		return wrote(io.WriteString(w, "hello"))
	},
	"a header that changes too late": func(w http.ResponseWriter) any {
		h := w.Header()
		h.Set("X-A", "1")
		w.WriteHeader(http.StatusOK)
		h.Set("X-A", "2")
		w.Header().Set("X-B", "2")
		return wrote(io.WriteString(w, "hello"))
	},
	"a second status": func(w http.ResponseWriter) any {
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusOK)
		return nil
	},
	"values that end a line": func(w http.ResponseWriter) any {
		w.Header().Set("X-A", "1\r\nX-Evil: 1")
		w.Header().Set("X-B", "  \n1\r ")
		w.Header()["X-C\r\nX-Evil"] = []string{"1"}
		w.Header()["X D"] = []string{"1"}
		w.Header()["X-E"] = []string{"1", "2", ""}
		w.Header()["x-f"] = []string{"1"}
		w.Header()[""] = []string{"1"}
		return nil
	},
	"long fields": func(w http.ResponseWriter) any {
		w.Header().Set("X-A", strings.Repeat("x", 3*answerRoom))
		return wrote(w.Write(long(100)))
	},
	"deadlines": func(w http.ResponseWriter) any {
		c := http.NewResponseController(w)
		a, b := c.SetWriteDeadline(time.Now().Add(time.Hour)), c.SetReadDeadline(time.Now().Add(time.Hour))
		return fmt.Sprint(a, b, wrote(w.Write(long(100))))
	},
	"broken off": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "10000")
		w.Header().Set("Content-Type", "text/x")
		w.Write(long(9000))
		panic(http.ErrAbortHandler)
	},
	"broken off early": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "10000")
		w.Header().Set("Content-Type", "text/x")
		w.Write(long(100))
		panic(http.ErrAbortHandler)
	},
	"broken off in pieces": func(w http.ResponseWriter) any {
		w.Header().Set("Content-Length", "10000")
		w.Header().Set("Content-Type", "text/x")
		w.Write(long(1500))
		w.Write(long(1500))
		panic(http.ErrAbortHandler)
	},
	"a stream broken off": func(w http.ResponseWriter) any {
		io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	},
	"broken off before anything": func(http.ResponseWriter) any { panic(http.ErrAbortHandler) },
	"no status": func(w http.ResponseWriter) (recovered any) {
		defer func() { recovered = recover() }()
		w.WriteHeader(99)
		return nil
	},
}

func wrote(n int, err error) string { return fmt.Sprint(n, err) }

func long(n int) []byte { return []byte(strings.Repeat("0123456789", n/10+1)[:n]) }

// heard is what a visitor gets to know of an answer.
type heard struct {
	Interim       []http.Header
	Status, Proto string
	Header        http.Header
	Length        int64
	Codings       []string
	Close         bool
	Body          string
	Trailer       http.Header
	Err           string
	Returned      any // what the handler has
}

// askTwice has a handler answer twice over one connection, if that can be used again.
func askTwice(t *testing.T, inLane bool, method string, handler func(http.ResponseWriter) any) (all [2]heard) {
	returned := make(chan any, len(all))
	s := start(t, inLane, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var got any
		defer func() { returned <- got }() // also if it panics
		got = handler(w)
	}))
	v := s.visitor()
	for i := range all {
		h := &all[i]
		if _, err := io.WriteString(v, method+" / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			break
		}
		for {
			res, body, err := v.listen(method)
			if res == nil {
				h.Err = "no answer"
				return all
			}
			delete(res.Header, "Date")
			if res.StatusCode < 200 {
				h.Interim = append(h.Interim, res.Header)
				continue
			}
			*h = heard{h.Interim, res.Status, res.Proto, res.Header, res.ContentLength, res.TransferEncoding, res.Close, body, res.Trailer, "", <-returned}
			if err != nil {
				h.Err, h.Body = "broken", "" // how much of a part there is, is nobody's business
			}
			break
		}
	}
	return all
}

// Whatever a handler answers arrives as from http.Server.
func TestAnswersSayWhatThoseOfNetHTTPSay(t *testing.T) {
	for name, handler := range handlers {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			t.Run(name+" "+method, func(t *testing.T) {
				got, want := askTwice(t, true, method, handler), askTwice(t, false, method, handler)
				if name == "no length at all" && method == http.MethodHead {
					want = got // http.Server sends the nonsense on
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%+.500v\nwant\n%+.500v", got, want)
				}
			})
		}
	}
}

// An answer that fits is one write, a large one is not copied.
func TestOneWriteForASmallAnswer(t *testing.T) {
	for _, c := range []struct {
		size, most int
		head       bool
	}{{0, 1, false}, {1000, 1, false}, {3500, 1, false}, {100 << 10, 3, false}, {1000, 1, true}} {
		counted := &counting{}
		a := newAnswer(&conn{Conn: counted, server: New(&http.Server{}), lost: func() {}}, map[bool]string{false: "GET", true: "HEAD"}[c.head])
		a.Header().Set("Content-Type", "text/plain")
		a.Header().Set("Content-Length", fmt.Sprint(c.size))
		a.Write(long(c.size))
		if !a.finish() || counted.writes > c.most {
			t.Errorf("%d bytes: %d writes", c.size, counted.writes)
		}
		a.leave()
	}
}

// counting counts writes. It does not know how to send several pieces at once.
type counting struct {
	scripted
	writes int
}

func (c *counting) Write(b []byte) (int, error) { c.writes++; return len(b), nil }

// Who keeps a writer beyond its handler writes into nobody's answer.
func TestNothingIsSaidAfterTheEnd(t *testing.T) {
	kept := make(chan http.ResponseWriter, 1)
	s := start(t, true, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { kept <- w }))
	v := s.visitor().say(get("/"))
	v.hear("GET")
	w := <-kept
	control := http.NewResponseController(w)
	_, err := w.Write([]byte("late"))
	for _, err := range []error{err, control.Flush(), control.SetReadDeadline(time.Unix(1, 0)), control.SetWriteDeadline(time.Unix(1, 0))} {
		if !errors.Is(err, errOver) {
			t.Error(err)
		}
	}
	w.WriteHeader(http.StatusTeapot)
	v.say(get("/"))
	if res, body := v.hear("GET"); res.StatusCode != http.StatusOK || body != "" {
		t.Errorf("%s %q", res.Status, body)
	}
	<-kept
}
