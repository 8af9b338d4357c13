package page

import (
	"fmt"
	"net/http"
	"time"
)

// Brief writes a refusal in a few lines of text, for those who may be refused a
// thousand times in a second: it costs next to nothing and a person can read it.
func Brief(w http.ResponseWriter, head bool, rf Refusal) {
	info := rf.reason().Info()
	h := w.Header()
	Headers(h)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	send(w, head, rf.status(), fmt.Appendf(nil, "%s\n\n%s\n%s\n\nIncident number %s, %s\n",
		info.Title, info.Text, info.Cure, rf.RequestID, rf.Time.UTC().Format(time.DateTime+" MST")))
}
