package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/access"
)

// maxSecret bounds a secret; a PEM key of 16384 bits stays below it.
const maxSecret = 64 << 10

// fileReader gives the decoder what lies outside the file: secrets, and the
// files that are named in it.
type fileReader struct {
	// dir is where relative paths start: the directory of the configuration
	// file, so that it means the same from wherever doorward is started.
	dir string
	env func(name string) (string, bool)
	// named holds every file the configuration names for reading, whether or not
	// it could be read, as it was before it was read.
	named stamps
}

// absolute resolves a path against the directory of the configuration.
func (r *fileReader) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}

// open opens a regular file for reading and remembers that it was named. A
// device or a pipe is refused before it is opened, since that may block.
func (r *fileReader) open(path string) (*os.File, error) {
	if _, again := r.named[path]; !again {
		r.named[path] = stampOf(path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotAFile
	}
	return os.Open(path)
}

// check reports whether a file can be read.
func (r *fileReader) check(path string) error {
	file, err := r.open(path)
	if err != nil {
		return err
	}
	return file.Close()
}

var errNotAFile = errors.New("it is not a file")

// secret decodes {file: PATH} or {env: NAME} and reads the value at once. No
// message ever repeats what stands in the place of a secret.
func (d *decoder) secret(v reflect.Value, n *yaml.Node, path string) {
	const cure = "write {file: PATH} or {env: NAME}"
	if n.Kind == yaml.ScalarNode {
		d.fail(n, path, "move the secret into a file of its own and write {file: PATH}, or {env: NAME}; then replace it, since it was readable here", "a secret may not stand in the configuration")
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, cure, "must be a mapping, this is a list")
		return
	}
	before := len(d.problems)
	d.section(v, n, path)
	secret := v.Interface().(access.Secret)
	switch {
	case len(d.problems) > before:
		return
	case (secret.File == "") == (secret.Env == ""):
		d.fail(n, path, cure, "a secret has exactly one source, a file or an environment variable")
		return
	}
	var value string
	var err error
	at := child(n, "env")
	if secret.File != "" {
		at = child(n, "file")
		secret.File = d.files.absolute(secret.File)
		value, err = d.files.secretFile(secret.File)
	} else {
		value, err = d.files.secretEnv(secret.Env)
	}
	if err != nil {
		d.fail(at, path, secretCure(secret, err), "%v", err)
	}
	v.Set(reflect.ValueOf(secret.Resolve(value)))
}

// child returns the value of a key that is known to be in the mapping.
func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return n
}

var (
	errEmptySecret = errors.New("is empty")
	errUnset       = errors.New("is not set")
)

func (r *fileReader) secretFile(path string) (string, error) {
	file, err := r.open(path)
	if err != nil {
		return "", fmt.Errorf("the secret file %s cannot be read: %w", path, cause(err))
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("the secret file %s cannot be read: %w", path, cause(err))
	case len(text) > maxSecret:
		return "", fmt.Errorf("the secret file %s is larger than %d KiB", path, maxSecret>>10)
	}
	value := strings.TrimRight(string(text), "\r\n")
	if value == "" {
		return "", fmt.Errorf("the secret file %s %w", path, errEmptySecret)
	}
	return value, nil
}

func (r *fileReader) secretEnv(name string) (string, error) {
	value, ok := r.env(name)
	switch {
	case !ok:
		return "", fmt.Errorf("the environment variable %s %w", shorten(name), errUnset)
	case value == "":
		return "", fmt.Errorf("the environment variable %s %w", shorten(name), errEmptySecret)
	}
	return value, nil
}

func secretCure(secret access.Secret, err error) string {
	switch {
	case errors.Is(err, errEmptySecret):
		return "put the secret there"
	case secret.Env != "":
		return "set it where doorward is started"
	}
	return fileCure(err)
}

// namedFile makes a path absolute and checks that the file can be read now, as
// it will be at start.
func (d *decoder) namedFile(v reflect.Value, n *yaml.Node, path string) {
	if v.String() == "" {
		return
	}
	name := d.files.absolute(v.String())
	v.SetString(name)
	if err := d.files.check(name); err != nil {
		d.fail(n, path, fileCure(err), "the file %s cannot be read: %v", name, cause(err))
	}
}

// cause strips the operation and the path that the message already names.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

func fileCure(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "relative paths start at the directory of the configuration file; is the file mounted?"
	case errors.Is(err, fs.ErrPermission):
		return "let the user that runs doorward read it"
	case errors.Is(err, errNotAFile):
		return "name a regular file"
	}
	return ""
}
