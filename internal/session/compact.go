package session

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"weak"

	"github.com/doorward/doorward/internal/access"
)

// account returns what requests see of a record, where it takes the least room:
// what thousands of logins have in common (the provider, groups, origins) is there
// once, and what is a login's own is in one piece. A record is some twenty pieces
// otherwise, which the garbage collector visits one by one, and which a request
// fetches from as many places of the memory.
func (n *names) account(rec *loginRecord) *account {
	a := &account{identity: rec.Identity, created: rec.Created, expires: rec.Expires}
	id := &a.identity
	n.share(&id.Provider, &id.Issuer, &id.Login.ACR, &id.ClientID)
	for i, list := range []*[]string{&id.Groups, &id.Login.AMR, &id.Login.Levels, &id.Scopes} {
		if len(*list) > 0 {
			a.lists[i] = n.list(*list)
			*list = a.lists[i].List()
		}
	}
	join(&id.Subject, &id.Email, &id.Name, &id.Username)
	return a
}

// names are strings that many records have in common.
type names struct {
	seed  maphash.Seed
	mu    sync.Mutex
	known map[string]string
	lists map[uint64]weak.Pointer[access.Texts] // by a hash of the texts
}

// The bounds of what is shared. Beyond mostNames it begins anew: what was shared
// stays so, and what comes later is shared among itself.
const (
	mostNames   = 1 << 14
	mostLists   = 1 << 16
	longestName = 256
)

// share replaces each string by the one of the same text that others have.
func (n *names) share(texts ...*string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, text := range texts {
		*text = n.shared(*text)
	}
}

func (n *names) shared(text string) string {
	if text == "" || len(text) > longestName {
		return text
	}
	if have, ok := n.known[text]; ok {
		return have
	}
	if n.known == nil || len(n.known) >= mostNames {
		n.known = make(map[string]string)
	}
	text = strings.Clone(text) // it may be a part of something larger
	n.known[text] = text
	return text
}

// list returns a list of the same texts, the one that others have if there is one.
// Here it is known for as long as somebody has it.
func (n *names) list(list []string) *access.Texts {
	var h maphash.Hash
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lists == nil || len(n.lists) >= mostLists {
		n.lists, n.seed = make(map[uint64]weak.Pointer[access.Texts]), maphash.MakeSeed()
	}
	h.SetSeed(n.seed)
	for _, text := range list {
		h.WriteString(text)
		h.WriteByte(0)
	}
	hash := h.Sum64()
	if have := n.lists[hash].Value(); have != nil && slices.Equal(have.List(), list) {
		return have
	}
	own := make([]string, len(list))
	for i, text := range list {
		own[i] = n.shared(text)
	}
	texts := access.NewTexts(own)
	n.lists[hash] = weak.Make(texts)
	return texts
}

// join makes the strings parts of one.
func join(texts ...*string) {
	size := 0
	for _, text := range texts {
		size += len(*text)
	}
	var whole strings.Builder
	whole.Grow(size)
	for _, text := range texts {
		whole.WriteString(*text)
	}
	rest := whole.String()
	for _, text := range texts {
		*text, rest = rest[:len(*text)], rest[len(*text):]
	}
}
