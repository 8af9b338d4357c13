package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// An erased record leaves a stub in its place: its number, the hash of the record
// before, and its own hash, which the record after names. So the chain stays
// whole, and since the salt has gone with the record, nothing of what it said can
// be guessed from its hash. Only the owner of the key can make a stub that
// verifies; anybody else's is a removed record.

// The texts that the signature of a stub begins with. A record that was signed
// goes on vouching for everything before it.
const (
	erasedPlain  = "doorward audit erasure 1\n"
	erasedSigned = "doorward audit erasure of a signature 1\n"
)

// stubRoom is how long a stub can get. Records of files are filled up to this
// length with blanks, so that each can be erased where it lies.
const stubRoom = 320

// stub returns what takes the place of a record, without a newline. Of the time
// it keeps the hour, which tells nobody from anybody else.
func stub(was record, prev string, at time.Time, vouched bool, key ed25519.PrivateKey) []byte {
	line := stubBody(was, prev, at)
	if key != nil {
		text := erasedPlain
		if vouched {
			text = erasedSigned
		}
		line = append(line, sigKey...)
		line = base64.RawURLEncoding.AppendEncode(line, ed25519.Sign(key, append([]byte(text), line[:len(line)-len(sigKey)]...)))
		line = append(line, '"')
	}
	return append(line, "}}"...)
}

func stubBody(was record, prev string, at time.Time) []byte {
	line := append([]byte(`{"kind":"`), access.EventErased...)
	line = append(line, `","time":"`...)
	line = at.UTC().Truncate(time.Hour).AppendFormat(line, time.RFC3339)
	line = append(line, `","chain":{"seq":`...)
	line = strconv.AppendUint(line, was.seq, 10)
	line = append(line, `,"prev":"`...)
	line = append(line, prev...)
	line = append(line, `","hash":"`...)
	line = append(line, was.hash...)
	return append(line, '"')
}

// recordOf is what the chain knows of a line: for a stub, what it knew of the
// record that was there.
func recordOf(line []byte, link *access.Link) record {
	if link.Hash != "" {
		return record{seq: link.Seq, hash: link.Hash}
	}
	return record{seq: link.Seq, hash: string(appendHash(nil, line))}
}

// erasedBy reports whether a line with a hash of its own is a stub, byte for
// byte: one that holds anything else would be a record that says it is another
// one. With a key, its signature has to fit; vouches tells that the record was
// signed.
func erasedBy(line []byte, link *access.Link, key ed25519.PublicKey) (ok, vouches bool) {
	var said struct {
		Time time.Time `json:"time"`
	}
	if json.Unmarshal(line, &said) != nil {
		return false, false
	}
	body := stubBody(record{link.Seq, link.Hash}, link.Prev, said.Time)
	rest, is := bytes.CutPrefix(line, body)
	if link.Sig != "" {
		rest, is = bytes.CutPrefix(rest, []byte(sigKey+link.Sig+`"`))
	}
	if !is || string(rest) != "}}" || !bytes.HasPrefix(line, body) {
		return false, false
	}
	if key == nil {
		return true, false
	}
	sig, err := base64.RawURLEncoding.DecodeString(link.Sig)
	if err != nil {
		return false, false
	}
	if ed25519.Verify(key, append([]byte(erasedPlain), body...), sig) {
		return true, false
	}
	vouches = ed25519.Verify(key, append([]byte(erasedSigned), body...), sig)
	return vouches, vouches
}
