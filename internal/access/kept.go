package access

import "sync/atomic"

// Kept is what stays in memory with a session that many requests come from: what
// was made of it once and need not be made again. No rule and no record ever sees
// it, and whoever uses it makes sure that it is about what the request says: a
// request is a value, and may have been changed.
type Kept struct {
	// Of is the identity of the session. Requests share it, and nobody changes it.
	Of *Identity
	// Groups are those of Of.
	Groups *Texts
	// Assertion is what package proxy made for upstreams.
	Assertion atomic.Value
	// Budget is under which key package proxy counts what Of uses; 0 as long as
	// nobody has asked.
	Budget atomic.Uint64
}

// Take takes over what was made for a session that is about the same.
func (k *Kept) Take(before *Kept) {
	if made := before.Assertion.Load(); made != nil {
		k.Assertion.Store(made)
	}
	k.Budget.Store(before.Budget.Load())
}

// Texts is a list of texts that nobody changes, with what was made of it.
type Texts struct {
	list []string
	made atomic.Value
}

// NewTexts returns a list, which belongs to the Texts from here on.
func NewTexts(list []string) *Texts { return &Texts{list: list} }

// List returns the list, which must not be changed. That of nil is nil.
func (t *Texts) List() []string {
	if t == nil {
		return nil
	}
	return t.list
}

// Is reports whether a list is this very one. Another one with the same texts is
// not.
func (t *Texts) Is(list []string) bool {
	return t != nil && len(list) > 0 && len(list) == len(t.list) && &list[0] == &t.list[0]
}

// Once returns what make made of the list, which is called at most a few times.
// There is only one make for all lists, and it never returns nil.
func (t *Texts) Once(make func([]string) any) any {
	made := t.made.Load()
	if made == nil {
		made = make(t.list)
		t.made.Store(made)
	}
	return made
}
