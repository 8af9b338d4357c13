package history

import (
	"bytes"
	"context"
	"fmt"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/audit"
)

// Find returns the decision of a request id, the last one if a listed proxy gave
// the same id to several.
func Find(ctx context.Context, files *audit.Files, id string) (*Record, error) {
	wanted := []byte(`"` + id + `"`)
	var found *Record
	err := scan(ctx, files, func(batch audit.Batch) (hit *Record) {
		for _, line := range batch.Lines {
			if !bytes.Contains(line.Text, wanted) {
				continue // sparing it the decoding
			}
			var contents Contents
			if r, ok := contents.read(batch.File, line); ok && r.Request != nil && r.Request.ID == id {
				hit = r
			}
		}
		return hit
	}, func(hit *Record) {
		if hit != nil {
			found = hit
		}
	})
	if err == nil && found == nil {
		err = fmt.Errorf("no decision has the id %q in %d files; the id is on the refusal page, in the header X-Request-Id and in the log", id, len(files.Names))
	}
	return found, err
}

// Lacks says what the record lacks, empty if none of it can matter to what a
// configuration decides on it.
func (r *Record) Lacks(cfg *config.Config) string {
	switch {
	case r.Obscure != "":
		return r.Obscure
	case cfg.Policy.Depends(r.Request, r.Gaps):
		return lacking(r.Gaps)
	}
	return ""
}
