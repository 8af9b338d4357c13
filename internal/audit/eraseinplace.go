package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A plain file is changed where it is, so that whoever appends to it at the same
// time goes on: a stub is filled up with blanks to the length of its record. What
// is to be written is put on the disk first, in a file beside it. If the machine
// fails in the middle, which may leave half a line, the next start of Doorward and
// the next erasure write all of it again.

// plan is what stands in that file, one for each record.
type plan struct {
	At   int64  `json:"at"`
	Was  []byte `json:"was"`
	Stub []byte `json:"stub"` // as long as Was
}

func planFile(name string) string {
	return filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".erasing")
}

// eraseInPlace writes stubs over records.
func eraseInPlace(file *os.File, name string, pieces []piece) error {
	if len(pieces) == 0 {
		return nil
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	var plans []plan
	for _, one := range pieces {
		p := plan{one.at, one.was, one.filled()}
		plans = append(plans, p)
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	at := planFile(name)
	err := replace(at, at, func(to io.Writer) error {
		if out, ok := to.(*os.File); ok {
			if err := likeBefore(out, file); err != nil {
				return err
			}
		}
		_, err := to.Write(text.Bytes())
		return err
	})
	if err != nil {
		return err
	}
	if err := carryOut(file, plans); err != nil {
		return err
	}
	return os.Remove(at)
}

func carryOut(file *os.File, plans []plan) error {
	for _, p := range plans {
		if _, err := file.WriteAt(p.Stub, p.At); err != nil {
			return err
		}
	}
	return file.Sync()
}

// finishAllErasing is finishErasing for a file and what was rotated away from it.
func finishAllErasing(path string) error {
	old, err := rotatedFrom(path)
	if err != nil {
		return err
	}
	for _, one := range append(old, rotated{path: path}) {
		if err := finishErasing(one.path); err != nil {
			return err
		}
	}
	return nil
}

// finishErasing carries out what an erasure of a file has left undone.
func finishErasing(name string) error {
	at := planFile(name)
	text, err := os.ReadFile(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("audit log: an erasure was not finished: %w", err)
	}
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("audit log: an erasure was not finished: %w", err)
	}
	if err == nil {
		defer file.Close()
		if err := carryOut(file, stillDue(file, text)); err != nil {
			return fmt.Errorf("audit log: an erasure was not finished: %w", err)
		}
	}
	return os.Remove(at)
}

// stillDue returns what of a plan is about this file: where the record stands that
// is to be erased, or its stub, or one of them in some places and the other in the
// rest. The file may be another one by now, of the same name.
func stillDue(file *os.File, text []byte) (due []plan) {
	for line := range bytes.Lines(text) {
		var p plan
		if json.Unmarshal(line, &p) != nil || p.At < 0 || len(p.Was) != len(p.Stub) {
			continue
		}
		there := make([]byte, len(p.Stub))
		if _, err := file.ReadAt(there, p.At); err == nil && mixed(there, p.Was, p.Stub) {
			due = append(due, p)
		}
	}
	return due
}

// mixed reports whether every byte of a text is that of one or of the other.
func mixed(text, one, other []byte) bool {
	for i := range text {
		if text[i] != one[i] && text[i] != other[i] {
			return false
		}
	}
	return true
}
