package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// audience is whom the tokens are for.
const audience = "bench-api"

// distinctTokens is more than Doorward keeps results of, so that tokens which
// come in turn are verified each time.
const distinctTokens = 10_000

// accessTokens returns a file with so many different access tokens of a batch
// client, one in each line.
func (b *bench) accessTokens(algorithm string, n int) (path string, err error) {
	path = filepath.Join(b.dir, fmt.Sprintf("tokens-%s-%d", algorithm, n))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := b.idp.SignWith(algorithm); err != nil {
		return "", err
	}
	header := b.idp.Header()
	header["typ"] = "at+jwt"
	tokens := make([]string, n)
	failed := make(chan error, n)
	var work sync.WaitGroup
	for worker := range runtime.NumCPU() {
		work.Go(func() {
			for i := worker; i < n; i += runtime.NumCPU() {
				now := time.Now().Unix()
				var err error
				tokens[i], err = b.idp.Sign(header, map[string]any{"iss": b.issuer, "sub": "batch", "client_id": "batch", "aud": audience,
					"scope": "orders.read orders.write", "jti": rand.Text(), "iat": now, "exp": now + 12*3600})
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	work.Wait()
	select {
	case err := <-failed:
		return "", err
	default:
		return path, writeLines(path, tokens)
	}
}

func writeLines(path string, list []string) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	for _, line := range list {
		w.WriteString(line)
		w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
