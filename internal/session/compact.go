package session

import (
	"strings"
	"sync"
)

// compact moves what a record says to where it takes the least room: what
// thousands of logins have in common (the provider, groups, origins) is there
// once, and what is a login's own is in one piece. A record is some twenty pieces
// otherwise, which the garbage collector visits one by one, and which a request
// fetches from as many places of the memory.
func (n *names) compact(rec *loginRecord) {
	id := &rec.Identity
	n.share(&id.Provider, &id.Issuer, &id.Login.ACR, &id.ClientID)
	n.shareLists(&id.Groups, &id.Login.AMR, &id.Login.Levels, &id.Scopes)
	join(&id.Subject, &id.Email, &id.Name, &id.Username, &rec.SID, &rec.Root)
}

// names are strings that many records have in common.
type names struct {
	mu    sync.Mutex
	known map[string]string
}

// The bounds of what is shared. Beyond mostNames it begins anew: what was shared
// stays so, and what comes later is shared among itself.
const (
	mostNames   = 1 << 14
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

// shareLists shares what is in the lists, and puts the lists into one. nil stays
// nil. Whoever appends to one of them gets another.
func (n *names) shareLists(lists ...*[]string) {
	size := 0
	for _, list := range lists {
		size += len(*list)
	}
	whole := make([]string, 0, size)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, list := range lists {
		if *list == nil {
			continue
		}
		from := len(whole)
		for _, text := range *list {
			whole = append(whole, n.shared(text))
		}
		*list = whole[from:len(whole):len(whole)]
	}
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
