package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/doorward/doorward/internal/access"
)

// Erased is what erasing a person's records did.
type Erased struct {
	// Records were erased, in Files.
	Records int `json:"records"`
	Files   int `json:"files"`
	// Left are records in a file that is being written, which are too short to be
	// erased where they lie. They can be once it was rotated.
	Left int `json:"left,omitempty"`
}

// EraseOptions say how to erase.
type EraseOptions struct {
	// Key signs the stubs, so that nobody else's erasure is taken for one. Nil: the
	// log is not signed.
	Key ed25519.PrivateKey
	// Live are the files that the configuration writes. They may be written at the same
	// time, so that they are changed where they are, never replaced; and files that
	// begin with the same name are of the same log.
	Live []string
}

// logs parts files by the log that they belong to. Each has a chain of its own, of
// which old files may have been deleted.
func (o *EraseOptions) logs(files *Files) (logs []*Files) {
	by := map[string]*Files{}
	for _, name := range files.Names {
		log := ""
		for _, live := range o.Live {
			if live = filepath.Clean(live); strings.HasPrefix(name, live) && len(live) > len(log) {
				log = live
			}
		}
		if by[log] == nil {
			by[log] = new(Files)
			logs = append(logs, by[log])
		}
		by[log].Names = append(by[log].Names, name)
	}
	return logs
}

// ErrTamperedWith is for a log that does not verify before anything is erased.
// Afterwards nobody could tell what was wrong with it.
var ErrTamperedWith = errors.New("the log does not verify, so nothing was erased: look at it with doorward verify-log first")

// Erase puts a stub in the place of every record about the person in files that
// belong to one log, or to several. All of them have to be named, or what is about
// the person in others is not known. It can be called again after it was
// interrupted.
func (p *Person) Erase(files *Files, opts EraseOptions) (done Erased, err error) {
	if slices.Contains(files.Names, Stdin) {
		return done, errors.New("audit log: what comes through a pipe cannot be erased; name the files")
	}
	unlock, err := lockFolders(files.Names)
	if err != nil {
		return done, err
	}
	defer unlock()
	for _, name := range files.Names {
		if err := finishErasing(name); err != nil {
			return done, err
		}
	}
	var public ed25519.PublicKey
	if opts.Key != nil {
		public = opts.Key.Public().(ed25519.PublicKey)
	}
	for _, log := range opts.logs(files) {
		switch found, err := Verify(log, VerifyOptions{Key: public}); {
		case err != nil && !errors.Is(err, ErrNothingToVerify):
			return done, err
		case err == nil && !found.Sound():
			return done, fmt.Errorf("%w (%s: %s)", ErrTamperedWith, found.Faults[0].Place, found.Faults[0].Text)
		}
	}
	if err := p.Learn(files); err != nil {
		return done, err
	}
	for _, name := range files.Names {
		n, left, err := p.eraseIn(name, opts)
		done.Records += n
		done.Left += left
		if n > 0 {
			done.Files++
		}
		if err != nil {
			return done, fmt.Errorf("audit log: %s: %w", name, err)
		}
	}
	return done, nil
}

// lockFolders keeps doorward from compressing or deleting old files meanwhile.
func lockFolders(names []string) (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, folder := range held {
			folder.Close()
		}
	}
	var folders []string
	for _, name := range names {
		folders = append(folders, filepath.Dir(name))
	}
	slices.Sort(folders)
	for _, name := range slices.Compact(folders) {
		folder, err := lockFolder(name)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, folder)
	}
	return unlock, nil
}

// lockFolder takes the lock that whoever replaces or deletes files in a folder
// holds. Closing it gives it back.
func lockFolder(name string) (*os.File, error) {
	folder, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if err := takeLock(folder); err != nil {
		folder.Close()
		return nil, fmt.Errorf("audit log: old files in %s are being compressed or erased at this moment: %w; try again", name, err)
	}
	return folder, nil
}

// piece is one record to be erased.
type piece struct {
	at   int64  // where it begins in the file
	was  []byte // without what ends the line
	stub []byte
}

// fits reports whether the stub can lie where the record does.
func (p *piece) fits() bool { return len(p.stub) <= len(p.was) }

// filled is the stub in the length of the record.
func (p *piece) filled() []byte {
	return append(bytes.Clone(p.stub), bytes.Repeat([]byte(" "), len(p.was)-len(p.stub))...)
}

// eraseIn erases in one file.
func (p *Person) eraseIn(name string, opts EraseOptions) (n, left int, err error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	packed, err := packing(file)
	if err != nil {
		return 0, 0, err
	}
	plain, err := decompress(file)
	if err != nil {
		return 0, 0, err
	}
	defer plain.Close()
	pieces, err := p.pieces(plain, opts)
	if err != nil || len(pieces) == 0 {
		return 0, 0, err
	}
	long := slices.ContainsFunc(pieces, func(one piece) bool { return !one.fits() })
	live := slices.ContainsFunc(opts.Live, func(other string) bool { return filepath.Clean(other) == filepath.Clean(name) })
	if packed != nil || long && !live {
		return len(pieces), 0, rewrite(file, name, packed, pieces)
	}
	fit := slices.DeleteFunc(slices.Clone(pieces), func(one piece) bool { return !one.fits() })
	return len(fit), len(pieces) - len(fit), eraseInPlace(file, name, fit)
}

// pieces finds what is about the person in a file.
func (p *Person) pieces(from io.Reader, opts EraseOptions) (list []piece, err error) {
	for raw, err := range rawLines(from) {
		if err != nil {
			return nil, err
		}
		line := bytes.TrimSpace(raw.text)
		e := eventIn(line)
		if e == nil || !p.About(e) {
			continue
		}
		one := piece{at: raw.at, was: bytes.Clone(bytes.TrimRight(raw.text, "\r\n"))}
		if e.Chain == nil {
			one.stub = []byte(`{"kind":"` + access.EventErased + `"}`) // from before there was a chain
		} else {
			was := recordOf(line, e.Chain)
			vouched := e.Chain.Sig != "" && opts.Key != nil && signedBy(line, e.Chain.Sig, opts.Key.Public().(ed25519.PublicKey))
			one.stub = stub(was, e.Chain.Prev, e.Time, vouched, opts.Key)
		}
		list = append(list, one)
	}
	return list, nil
}

// rawLine is a line as it stands in a file, with what ends it.
type rawLine struct {
	at   int64
	text []byte
}

// rawLines yields whole lines. One that is longer than a record can be, and one
// that nothing ends, is none. A line is valid until the next.
func rawLines(from io.Reader) func(yield func(rawLine, error) bool) {
	return func(yield func(rawLine, error) bool) {
		in := bufio.NewReaderSize(from, MaxLine)
		for at, inside := int64(0), false; ; {
			text, err := in.ReadSlice('\n')
			whole := !inside && err == nil
			inside = errors.Is(err, bufio.ErrBufferFull)
			if whole && !yield(rawLine{at, text}, nil) {
				return
			}
			at += int64(len(text))
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil && !inside:
				yield(rawLine{}, err)
				return
			}
		}
	}
}

// packing returns how to compress what takes the place of a file, nil for a plain
// one. The file is at its beginning afterwards.
func packing(file *os.File) (func(io.Writer) (io.WriteCloser, error), error) {
	start := make([]byte, 4)
	n, err := io.ReadFull(file, start)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	switch start = start[:n]; {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return func(to io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(to), nil }, nil
	case bytes.Equal(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return func(to io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(to) }, nil
	}
	return nil, nil
}

// rewrite puts a file with the stubs in the place of the one that is open. Until
// it is complete and on the disk, the old one stays.
func rewrite(file *os.File, name string, packed func(io.Writer) (io.WriteCloser, error), pieces []piece) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	plain, err := decompress(file)
	if err != nil {
		return err
	}
	defer plain.Close()
	return replace(name, name, func(to io.Writer) error {
		if out, ok := to.(*os.File); ok {
			if err := likeBefore(out, file); err != nil {
				return err
			}
		}
		if packed == nil {
			return copyWith(to, plain, pieces)
		}
		out, err := packed(to)
		if err != nil {
			return err
		}
		return errors.Join(copyWith(out, plain, pieces), out.Close())
	})
}

// copyWith copies a log with stubs in the place of pieces.
func copyWith(to io.Writer, from io.Reader, pieces []piece) error {
	at := int64(0)
	for _, one := range pieces {
		if _, err := io.CopyN(to, from, one.at-at); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, from, int64(len(one.was))); err != nil {
			return err
		}
		if _, err := to.Write(one.stub); err != nil {
			return err
		}
		at = one.at + int64(len(one.was))
	}
	_, err := io.Copy(to, from)
	return err
}

// likeBefore gives a new file the permissions and, where that is possible, the
// owner of the one that it replaces: who erases may be another user than the one
// Doorward runs as.
func likeBefore(new, before *os.File) error {
	info, err := before.Stat()
	if err != nil {
		return err
	}
	if err := new.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	return keepOwner(new, info)
}
