package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/doorward/doorward/internal/access"
)

// chain ties every record of a file to the one before it: each carries its
// number and the hash of the whole line before. What was removed, changed or
// moved afterwards does not fit any more. The last record of every write is
// signed, if there is a key: nobody else can then write a chain that fits.
type chain struct {
	seq  uint64
	prev []byte             // hash of the last record, as it is written
	key  ed25519.PrivateKey // nil: records are not signed
	hash hasher

	random [64 * saltBytes]byte
	left   int // bytes of it that were not used
}

const saltBytes = 12

// The texts that a signature begins with, so that it means one thing only.
const (
	signed = "doorward audit record 1\n"
	sigKey = `,"sig":"`
)

// SigningKey derives the key that signs audit files from the secret audit.key.
func SigningKey(secret access.Secret) (ed25519.PrivateKey, error) {
	seed, err := derive(secret, "audit chain", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// derive returns key bytes for one purpose (HKDF, RFC 5869).
func derive(secret access.Secret, purpose string, length int) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte(secret.Reveal()), nil, "doorward "+purpose, length)
}

// link appends the line, which ends with "}\n", as the next record.
func (c *chain) link(to []byte, line encoded, sign bool) []byte {
	var ok bool
	if line.rest, ok = bytes.CutSuffix(line.rest, []byte("}\n")); !ok {
		return line.appendTo(to) // encode never makes such a line
	}
	start := len(to)
	c.seq++
	to = line.appendTo(to)
	to = append(to, `,"chain":{"seq":`...)
	to = strconv.AppendUint(to, c.seq, 10)
	to = append(to, `,"prev":"`...)
	to = append(to, c.prev...)
	to = append(to, `","salt":"`...)
	to = c.salt(to)
	to = append(to, '"')
	if sign && c.key != nil {
		to = c.sign(to, start)
	}
	to = append(to, "}}"...)
	c.prev = c.hash.append(c.prev[:0], to[start:], line.begin)
	for len(to)-start < stubRoom {
		to = append(to, ' ') // so that it can be erased where it lies
	}
	return append(to, '\n')
}

// sign appends the signature of what stands in the line so far.
func (c *chain) sign(to []byte, start int) []byte {
	sig := ed25519.Sign(c.key, append([]byte(signed), to[start:]...))
	to = append(to, sigKey...)
	to = base64.RawURLEncoding.AppendEncode(to, sig)
	return append(to, '"')
}

// signedBy verifies the signature of a line.
func signedBy(line []byte, sig string, key ed25519.PublicKey) bool {
	at := bytes.LastIndex(line, []byte(sigKey))
	raw, err := base64.RawURLEncoding.DecodeString(sig)
	if at < 0 || err != nil || string(line[at:]) != sigKey+sig+`"}}` {
		return false
	}
	return ed25519.Verify(key, append([]byte(signed), line[:at]...), raw)
}

// appendHash appends the hash of a record, as records carry it.
func appendHash(to, record []byte) []byte {
	sum := sha256.Sum256(record)
	return base64.RawURLEncoding.AppendEncode(to, sum[:])
}

// salt appends the salt of a record. Randomness is fetched for many at a time.
func (c *chain) salt(to []byte) []byte {
	if c.left < saltBytes {
		rand.Read(c.random[:]) // never fails
		c.left = len(c.random)
	}
	fresh := c.random[len(c.random)-c.left:][:saltBytes]
	c.left -= saltBytes
	return base64.RawURLEncoding.AppendEncode(to, fresh)
}

// linkOf returns the link of a line; nil if the line is no whole record, or of a
// log that has no chain.
func linkOf(line []byte) (link *access.Link, whole bool) {
	var record struct {
		Kind  string       `json:"kind"`
		Chain *access.Link `json:"chain"`
	}
	if json.Unmarshal(line, &record) != nil || record.Kind == "" {
		return nil, false
	}
	return record.Chain, true
}

// resume finds where the chain of a file ended: in the file itself, or in the
// newest one that was rotated away from it. Without either a new chain begins.
func (c *chain) resume(path string) error {
	last, err := lastRecord(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && last == nil {
		var old []rotated
		if old, err = rotatedFrom(path); err == nil && len(old) > 0 {
			last, err = lastRecord(slices.MaxFunc(old, rotated.compare).path)
		}
	}
	if err != nil {
		return fmt.Errorf("audit log: where the chain of %s ends: %w", path, err)
	}
	if last != nil {
		c.seq, c.prev = last.seq, []byte(last.hash)
	}
	return nil
}

// record is what the chain knows of a line.
type record struct {
	seq  uint64
	hash string
}

// lastRecord returns the last record of a file that is part of a chain, nil if
// there is none. Of a plain file it reads the end only.
func lastRecord(path string) (*record, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain, err := decompress(file)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	var from io.Reader = plain
	if info, err := file.Stat(); err == nil && info.Size() > 2*MaxLine && filepath.Ext(path) != compressedSuffix {
		// Two lines at least; the first may be cut, and is then no record.
		from = io.NewSectionReader(file, info.Size()-2*MaxLine, 2*MaxLine)
	}
	var last *record
	for line, err := range lines(from) {
		if err != nil {
			return nil, err
		}
		if link, _ := linkOf(line); link != nil {
			is := recordOf(line, link)
			last = &is
		}
	}
	return last, nil
}
