// Command gendocs writes the reference of the configuration, docs/config.md,
// and its JSON Schema, config/schema.json, from the types of the sections and
// the comments on their fields.
//
// It is run by `go generate ./config`. A test fails while the files are not what
// it would write.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(".."); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

// run writes both files of the module at root.
func run(root string) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the text of both files by their path below root.
func generate(root string) (map[string][]byte, error) {
	example, err := os.ReadFile(filepath.Join(root, "examples", "first.yaml"))
	if err != nil {
		return nil, err
	}
	comments := newComments(root)
	schema, err := makeSchema(comments)
	if err != nil {
		return nil, err
	}
	reference, err := makeReference(comments, string(example))
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"config/schema.json": schema, "docs/config.md": reference}, nil
}
