package testidp

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// What an Inventory accepts from those who ask.
const (
	InventoryTenant   = "contoso"
	InventoryClient   = "0c1d"
	InventorySecret   = "s3cret"
	InventoryAPIToken = "t0ken" // of vendors without a token endpoint
)

// Inventory is a stand-in for the device inventory of a vendor. It speaks the
// vendor's API: its way of proving who asks, its pages, its words. Like the
// provider it can misbehave on demand, also while it is being asked. Its methods
// may be called from several goroutines.
type Inventory struct {
	vendor vendor
	now    func() time.Time

	// one holds the requests apart: net/http repeats one whose connection broke
	// while the handler of the first may still be ending.
	one sync.Mutex

	mu     sync.Mutex
	lists  []map[string][]any // by path, one for every time the content changed
	size   int                // of a page
	once   []Misbehaviour
	always Misbehaviour
	token  Misbehaviour
	log    []string
	tokens inventoryTokens
	// forgotten is how many contents are too old for a delta query.
	forgotten int
}

// NewInventory returns the empty inventory of a vendor: "http", "fleet",
// "intune", "entra", "defender", "jamf", "google" or "crowdstrike". It panics
// for others. now is its clock, nil for the real one.
func NewInventory(kind string, now func() time.Time) *Inventory {
	v, ok := vendors[kind]
	if !ok {
		panic("testidp: there is no inventory of kind " + kind)
	}
	if now == nil {
		now = time.Now
	}
	i := &Inventory{vendor: v, now: now, size: 2}
	i.Set()
	return i
}

// Set replaces the whole content. What the vendor has no word for is left out.
func (i *Inventory) Set(devices ...access.Device) {
	content := map[string][]any{}
	for n, d := range devices {
		for path, records := range i.vendor.records(n+1, d) {
			content[path] = append(content[path], records...)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lists = append(i.lists, content)
}

// SetRecords replaces the content of one list by records in the vendor's JSON.
func (i *Inventory) SetRecords(path string, records ...string) {
	var list []any
	for _, text := range records {
		list = append(list, json.RawMessage(text))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	content := maps.Clone(i.lists[len(i.lists)-1])
	content[path] = list
	i.lists = append(i.lists, content)
}

// Change replaces every record of the content by what change makes of it.
func (i *Inventory) Change(change func(path string, record any) any) {
	i.mu.Lock()
	content := i.lists[len(i.lists)-1]
	i.mu.Unlock()
	changed := map[string][]any{}
	for _, path := range slices.Sorted(maps.Keys(content)) {
		for _, record := range content[path] {
			changed[path] = append(changed[path], change(path, record))
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lists = append(i.lists, changed)
}

// SetPageSize sets how many records a page has at most, whatever is asked for.
// Default 2.
func (i *Inventory) SetPageSize(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.size = n
}

// Revoke refuses all tokens given so far.
func (i *Inventory) Revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tokens.valid = nil
}

// Forget lets delta queries from the past fail.
func (i *Inventory) Forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lists = append(i.lists, i.lists[len(i.lists)-1])
	i.forgotten = len(i.lists) - 1
}

// Requests returns the paths and queries of the pages asked for so far, without
// those for tokens.
func (i *Inventory) Requests() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.log)
}

// Tokens returns how many tokens were given.
func (i *Inventory) Tokens() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tokens.given
}

// ServeHTTP implements http.Handler.
func (i *Inventory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.one.Lock()
	defer i.one.Unlock()
	if i.vendor.token != "" && (r.URL.Path == i.vendor.token || r.URL.Path == metadataPath && i.vendor.assertion) {
		i.mu.Lock()
		lie := i.token
		i.mu.Unlock()
		if lie == nil {
			i.serveToken(w, r)
		} else {
			lie(w, r, i.serveToken)
		}
		return
	}
	i.mu.Lock()
	i.log = append(i.log, r.URL.RequestURI())
	lie := i.always
	if len(i.once) > 0 {
		lie, i.once = i.once[0], i.once[1:]
	}
	i.mu.Unlock()
	if lie == nil {
		i.servePage(w, r)
		return
	}
	lie(w, r, i.servePage)
}

// servePage answers truthfully.
func (i *Inventory) servePage(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if r.Method != http.MethodGet {
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	}
	if !i.authorized(r) {
		http.Error(w, `{"error":"unauthorized"}`, http.StatusUnauthorized)
		return
	}
	list, ok := i.vendor.lists[r.URL.Path]
	if !ok {
		http.Error(w, `{"error":"not found"}`, http.StatusNotFound)
		return
	}
	list(i, w, r)
}

// current returns the records of the list at a path.
func (i *Inventory) current(path string) []any { return i.lists[len(i.lists)-1][path] }

// A list answers for one collection of a vendor's API. The caller holds i.mu.
type list func(i *Inventory, w http.ResponseWriter, r *http.Request)

// page cuts a page out of records, from a position on.
func (i *Inventory) page(records []any, from int) (page []any, next int, more bool) {
	from = min(max(from, 0), len(records))
	next = min(from+i.size, len(records))
	return append([]any{}, records[from:next]...), next, next < len(records)
}

func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.URL.Query().Get(name))
	return n
}

func base(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// linked pages hold the link to the next one; around makes the answer.
func linked(around func(records []any, next any) any) list {
	return func(i *Inventory, w http.ResponseWriter, r *http.Request) {
		records, next, more := i.page(i.current(r.URL.Path), number(r, "$skip"))
		var link any
		if more {
			query := r.URL.Query()
			query.Set("$skip", strconv.Itoa(next))
			link = base(r) + r.URL.Path + "?" + query.Encode()
		}
		writeJSON(w, http.StatusOK, around(records, link))
	}
}

// odata are the pages of Microsoft's APIs.
func odata() list {
	return linked(func(records []any, next any) any {
		answer := map[string]any{"value": records}
		if next != nil {
			answer["@odata.nextLink"] = next
		}
		return answer
	})
}

// numbered pages are asked for by their number.
func numbered(around func(records []any, total int) any) list {
	return func(i *Inventory, w http.ResponseWriter, r *http.Request) {
		all := i.current(r.URL.Path)
		records, _, _ := i.page(all, number(r, "page")*i.size)
		writeJSON(w, http.StatusOK, around(records, len(all)))
	}
}

// googleList are the pages of Google, which leaves out what is empty.
func googleList(name string) list {
	return func(i *Inventory, w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("customer") != "customers/my_customer" {
			http.Error(w, `{"error":{"status":"PERMISSION_DENIED"}}`, http.StatusForbidden)
			return
		}
		records, next, more := i.page(i.current(r.URL.Path), number(r, "pageToken"))
		answer := map[string]any{}
		if len(records) > 0 {
			answer[name] = records
		}
		if more {
			answer["nextPageToken"] = strconv.Itoa(next)
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// assessments is the list of scores of CrowdStrike, and assessed the answer to
// a question about some of them.
func assessments(i *Inventory, w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Query().Get("filter"), "score:") {
		http.Error(w, `{"errors":[{"code":400,"message":"filter is missing"}]}`, http.StatusBadRequest)
		return
	}
	all := i.current(crowdStrikeScores)
	records, next, more := i.page(all, number(r, "after"))
	paging := map[string]any{"total": len(all)}
	if more {
		paging["next"] = strconv.Itoa(next)
	}
	writeJSON(w, http.StatusOK, map[string]any{"meta": map[string]any{"pagination": paging}, "resources": records, "errors": []any{}})
}

func assessed(i *Inventory, w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query()["ids"]
	found := []any{}
	for _, record := range i.current(crowdStrikeDetails) {
		if slices.Contains(asked, member(record, "aid")) {
			found = append(found, record)
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"meta": map[string]any{}, "resources": found, "errors": []any{}})
}

// delta is the delta query of Graph. Tokens are the numbers of contents: from
// which, to which, and how far the pages in between were given.
func delta(i *Inventory, w http.ResponseWriter, r *http.Request) {
	from, to, at := -1, len(i.lists)-1, 0
	token := r.URL.Query().Get("$deltatoken")
	if skip := r.URL.Query().Get("$skiptoken"); skip != "" {
		token = skip
	}
	if token != "" {
		if _, err := fmt.Sscanf(token, "%d-%d-%d", &from, &to, &at); err != nil || to >= len(i.lists) {
			http.Error(w, `{"error":{"code":"badRequest"}}`, http.StatusBadRequest)
			return
		}
		if to < 0 { // a delta token: to whatever is now
			to = len(i.lists) - 1
		}
		if from >= 0 && from < i.forgotten {
			w.Header().Set("Location", base(r)+r.URL.Path+"?$deltatoken=")
			http.Error(w, `{"error":{"code":"syncStateNotFound"}}`, http.StatusGone)
			return
		}
	}
	var before []any
	if from >= 0 {
		before = i.lists[from][r.URL.Path]
	}
	records, next, more := i.page(changes(before, i.lists[to][r.URL.Path]), at)
	answer := map[string]any{"value": records}
	if more {
		answer["@odata.nextLink"] = base(r) + r.URL.Path + "?" + url.Values{"$skiptoken": {fmt.Sprintf("%d-%d-%d", from, to, next)}}.Encode()
	} else {
		answer["@odata.deltaLink"] = base(r) + r.URL.Path + "?" + url.Values{"$deltatoken": {fmt.Sprintf("%d-%d-0", to, -1)}}.Encode()
	}
	writeJSON(w, http.StatusOK, answer)
}

// changes lists how one content becomes another: what is new, the properties
// that differ, and what is gone.
func changes(before, after []any) []any {
	old := map[string]map[string]any{}
	for _, record := range before {
		old[member(record, "id")] = members(record)
	}
	list := []any{}
	for _, record := range after {
		now, id := members(record), member(record, "id")
		was, known := old[id]
		delete(old, id)
		change := map[string]any{}
		for name, value := range now {
			if have, there := was[name]; !there || fmt.Sprint(have) != fmt.Sprint(value) {
				change[name] = value
			}
		}
		for name := range was {
			if _, there := now[name]; !there {
				change[name] = nil
			}
		}
		if len(change) > 0 || !known {
			change["id"] = id
			list = append(list, change)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		list = append(list, map[string]any{"id": id, "@removed": map[string]any{"reason": "deleted"}})
	}
	return list
}

// members returns a record as an object, whether it was given as JSON or not.
func members(record any) map[string]any {
	if object, ok := record.(map[string]any); ok {
		return object
	}
	text, _ := record.(json.RawMessage)
	var object map[string]any
	_ = json.Unmarshal(text, &object) // nothing, if it is a lie
	return object
}

func member(record any, name string) string {
	text, _ := members(record)[name].(string)
	return text
}
