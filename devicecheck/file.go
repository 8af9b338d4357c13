package devicecheck

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	maxFile = 64 << 20
	// quiet is how long a file must lie still before it is read, so that one
	// replacement in several steps leads to one reading.
	quiet = 100 * time.Millisecond
)

// file is an inventory in a JSON or CSV file.
type file struct {
	path string
	read func(b *builder, data []byte)
}

func newFile(path string) (*file, error) {
	read, err := formatOf(path)
	if err != nil {
		return nil, err
	}
	return &file{path: path, read: read}, nil
}

// formatOf picks the reader by the extension of the file.
func formatOf(path string) (func(*builder, []byte), error) {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".json":
		return readJSON, nil
	case ".csv":
		return readCSV, nil
	default:
		return nil, fmt.Errorf("%q has the extension %q, which is neither .json nor .csv", clip(path), clip(ext))
	}
}

// fetch implements fetcher.
func (f *file) fetch(_ context.Context, have *inventory) (*inventory, error) {
	data, err := readWhole(f.path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	version := hex.EncodeToString(sum[:])
	if have != nil && have.version == version {
		return have, nil
	}
	b := newBuilder(f.path, version)
	f.read(b, bytes.TrimPrefix(data, []byte("\ufeff"))) // spreadsheets write a byte order mark
	return b.done()
}

// readWhole reads a regular file of bounded size, and fails if the file changed
// meanwhile.
func readWhole(path string) ([]byte, error) {
	// Asked before opening, because opening a named pipe waits for a writer.
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w (put the inventory there, readable for this user)", err)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file (name a file)", path)
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w (make it readable for this user)", err)
	}
	defer in.Close()
	before, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if before.Size() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB (split it into several sources)", path, maxFile>>20)
	}
	data := make([]byte, 0, before.Size()+1)
	buf := bytes.NewBuffer(data)
	if _, err := io.Copy(buf, io.LimitReader(in, maxFile+1)); err != nil {
		return nil, err
	}
	after, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if int64(buf.Len()) != before.Size() || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return nil, fmt.Errorf("%s changed while it was read (rename complete files into place)", path)
	}
	return buf.Bytes(), nil
}

// announce implements announcer. It watches the directory, not the file: a
// renamed file is a new one, and Kubernetes replaces a ConfigMap by swapping
// the link ..data that its files point through. The channel is also closed when
// the directory itself goes away.
func (f *file) announce(ctx context.Context) (<-chan struct{}, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := w.Add(filepath.Dir(f.path)); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	out := make(chan struct{})
	go func() {
		defer close(out)
		defer w.Close()
		f.watch(ctx, w, out)
	}()
	return out, nil
}

func (f *file) watch(ctx context.Context, w *fsnotify.Watcher, out chan<- struct{}) {
	name, dir := filepath.Base(f.path), filepath.Dir(f.path)
	still := time.NewTimer(quiet)
	still.Stop()
	defer still.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-w.Events:
			if event.Name == dir && event.Has(fsnotify.Remove|fsnotify.Rename) {
				return // the watch ended with the directory
			}
			if base := filepath.Base(event.Name); base == name || strings.HasPrefix(base, "..") {
				still.Reset(quiet)
			}
		case <-w.Errors: // events were lost, so something may have changed
			still.Reset(quiet)
		case <-still.C:
			select {
			case out <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
}
