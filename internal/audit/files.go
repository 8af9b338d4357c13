package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// Stdin is the name of standard input among Files.
const Stdin = "-"

// Bounds on what is read at once.
const (
	readAtOnce = 256 << 10
	// zstdWindow is the most memory that a compressed file can make us keep.
	zstdWindow = 64 << 20
)

// Files are the files of an audit log, plain or compressed with gzip or zstd,
// which is told by their content and not by their name.
type Files struct {
	Names []string
	// Stdin is read for the name "-". Default os.Stdin.
	Stdin io.Reader
	// Size is the sum of the sizes on disk; 0 where it is not known.
	Size int64

	read atomic.Int64
}

// Find resolves names of audit files. A name may be a pattern such as
// `audit.jsonl*`, for a log that was rotated, or a folder, which stands for the
// files in it. A file that is named twice is read once; the order is that of the
// names, and that of the alphabet within one. Every file must be readable.
func Find(names []string) (*Files, error) {
	f := &Files{}
	known := true
	for _, name := range names {
		list, err := expand(name)
		if err != nil {
			return nil, err
		}
		for _, path := range list {
			if slices.Contains(f.Names, path) {
				continue
			}
			f.Names = append(f.Names, path)
			if path == Stdin {
				known = false
				continue
			}
			size, err := readable(path)
			if err != nil {
				return nil, err
			}
			f.Size += size
		}
	}
	if !known {
		f.Size = 0
	}
	return f, nil
}

func expand(name string) ([]string, error) {
	if name == Stdin {
		return []string{name}, nil
	}
	name = filepath.Clean(name)
	if info, err := os.Stat(name); err == nil {
		if !info.IsDir() {
			return []string{name}, nil
		}
		name = filepath.Join(name, "*")
	}
	found, err := filepath.Glob(name)
	if err != nil {
		return nil, fmt.Errorf("audit log: %q is no pattern: %w", name, err)
	}
	found = slices.DeleteFunc(found, func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || info.IsDir()
	})
	if len(found) == 0 {
		return nil, fmt.Errorf("audit log: there is no file %s", name)
	}
	return found, nil
}

func readable(path string) (size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	return info.Size(), nil
}

// Read returns how many bytes have been read from the disk so far.
func (f *Files) Read() int64 { return f.read.Load() }

// A Line is one line of a file.
type Line struct {
	// Number counts from 1.
	Number int
	// Text is the line without surrounding blanks.
	Text []byte
	// Torn tells that the file ends without ending the line.
	Torn bool
	// Err is set for a line that is too long, and for the end of a file that
	// cannot be read further. Text is empty then.
	Err error
}

// A Batch is a run of lines of one file. It belongs to whoever got it.
type Batch struct {
	File  string
	Lines []Line
}

// Batches yields all lines of all files in order, some hundred at a time. Blank
// lines are left out. What is wrong with a line or a file is an error in that
// line; reading goes on with the next one, or the next file.
func (f *Files) Batches() iter.Seq[Batch] {
	return func(yield func(Batch) bool) {
		for _, name := range f.Names {
			if !f.batches(name, yield) {
				return
			}
		}
	}
}

func (f *Files) batches(name string, yield func(Batch) bool) bool {
	raw, err := f.open(name)
	if err != nil {
		return yield(Batch{File: name, Lines: []Line{{Err: err}}})
	}
	defer raw.Close()
	plain, err := decompress(counted{raw, &f.read})
	if err != nil {
		return yield(Batch{File: name, Lines: []Line{{Err: err}}})
	}
	defer plain.Close()
	in := bufio.NewReaderSize(plain, MaxLine)
	for number := 1; ; {
		batch, next, more := readBatch(in, name, number)
		if len(batch.Lines) > 0 && !yield(batch) {
			return false
		}
		if !more {
			return true
		}
		number = next
	}
}

func (f *Files) open(name string) (io.ReadCloser, error) {
	if name != Stdin {
		return os.Open(name)
	}
	return io.NopCloser(cmp.Or[io.Reader](f.Stdin, os.Stdin)), nil
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

// Read implements io.Reader.
func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// decompress looks at the first bytes (RFC 1952 §2.3.1, RFC 8878 §3.1.1).
func decompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	start, err := in.Peek(4)
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return gzip.NewReader(in)
	case bytes.Equal(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	}
	return io.NopCloser(in), nil
}

// readBatch reads lines until a batch is full or the file ends.
func readBatch(in *bufio.Reader, file string, number int) (batch Batch, next int, more bool) {
	batch.File = file
	size := 0
	for size < readAtOnce {
		text, err := readLine(in)
		line := Line{Number: number, Torn: errors.Is(err, io.EOF) && !errors.Is(err, ErrTooLong)}
		number++
		switch {
		case errors.Is(err, ErrTooLong):
			line.Err = ErrTooLong
		case err != nil && !errors.Is(err, io.EOF):
			line.Err, line.Torn = fmt.Errorf("the file cannot be read further: %w", err), false
		default:
			line.Text = bytes.Clone(text)
		}
		size += len(line.Text)
		if len(line.Text) > 0 || line.Err != nil {
			batch.Lines = append(batch.Lines, line)
		}
		if err != nil && !errors.Is(err, ErrTooLong) {
			return batch, number, false
		}
	}
	return batch, number, true
}

// Place names a line for people: "audit.jsonl:7".
func Place(file string, line int) string {
	if file == Stdin {
		file = "(standard input)"
	}
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", strings.TrimPrefix(file, "./"), line)
}
