package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
)

// The paths of the backend, and the sizes of what it answers.
const (
	smallPath, smallSize = "/", 1 << 10
	largePath, largeSize = "/large", 1 << 20
)

// serveBackend is the application behind all participants: it answers each
// request with the same bytes, and does as little for that as it can, because it
// shares its core with the load. A WebSocket is accepted and says nothing.
//
// It is no web server: it takes for granted that requests are well-formed, have
// no body and come one after the other on each connection.
func serveBackend(ctx context.Context, address string) error {
	debug.SetGCPercent(-1) // it allocates for connections only
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	small, large := answer(smallSize), answer(largeSize)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil // closed
		}
		go answerAll(conn, small, large)
	}
}

func answer(size int) []byte {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", size)
	return append([]byte(head), bytes.Repeat([]byte("x"), size)...)
}

func answerAll(conn net.Conn, small, large []byte) {
	defer conn.Close()
	var room [4 << 10]byte
	var have int
	for {
		n, err := conn.Read(room[have:])
		if err != nil {
			return
		}
		have += n
		if !bytes.HasSuffix(room[:have], []byte("\r\n\r\n")) {
			if have == len(room) {
				return // more than any participant sends
			}
			continue
		}
		request := room[:have]
		have = 0
		switch {
		case bytes.Contains(request, []byte("\r\nUpgrade: websocket\r\n")), bytes.Contains(request, []byte("\r\nupgrade: websocket\r\n")):
			accept(conn, request)
			conn.Read(room[:1]) // until the other side has enough
			return
		case bytes.HasPrefix(request, []byte("GET "+largePath+" ")):
			_, err = conn.Write(large)
		default:
			_, err = conn.Write(small)
		}
		if err != nil {
			return
		}
	}
}

// accept answers the opening handshake of a WebSocket (RFC 6455 §4.2.2).
func accept(conn net.Conn, request []byte) {
	key := ""
	for lines := bufio.NewScanner(bytes.NewReader(request)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.EqualFold(name, "Sec-WebSocket-Key") {
			key = strings.TrimSpace(value)
		}
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
}
