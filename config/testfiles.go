package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// testSuffix ends the name of a file with tests.
const testSuffix = "_test.yaml"

// testFile is a file with tests beside the configuration.
type testFile struct {
	Tests []Test `yaml:"tests"`
}

// AllTests returns the tests in the configuration and in the files beside it
// whose names end in _test.yaml. NAME_test.yaml belongs to NAME.yaml where there
// is one, and to every configuration of its directory otherwise. The error is of
// type Problems.
//
// Serving never reads these files: a mistake in a test keeps nobody out.
func (c *Config) AllTests() ([]Test, error) {
	tests := slices.Clone(c.Tests)
	first := map[string]*Test{}
	for i := range tests {
		first[tests[i].Name] = &tests[i]
	}
	paths, err := testFiles(c.Path)
	if err != nil {
		return nil, Problems{{File: filepath.Dir(c.Path), Text: "the directory cannot be read: " + cause(err).Error()}}
	}
	var problems Problems
	for _, path := range paths {
		var file testFile
		d, err := decodeFile(path, &file)
		if err != nil {
			problems = append(problems, err.(Problems)...)
			continue
		}
		f := access.NewFaults("")
		validateTests(file.Tests, f, first)
		for i := range file.Tests {
			c.checkTest(&file.Tests[i], f.At("tests[%d]", i))
		}
		d.report(f.List())
		if err := d.problems.of(path); err != nil {
			problems = append(problems, err.(Problems)...)
		}
		placeTests(file.Tests, path, d.where)
		tests = append(tests, file.Tests...)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return tests, nil
}

// testFiles lists the files with tests that belong to the configuration at path.
func testFiles(path string) ([]string, error) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		name, isTest := strings.CutSuffix(entry.Name(), testSuffix)
		if !isTest || entry.IsDir() {
			continue
		}
		owner := filepath.Join(dir, name+".yaml")
		if _, err := os.Stat(owner); err == nil && owner != path {
			continue
		}
		paths = append(paths, filepath.Join(dir, entry.Name()))
	}
	return paths, nil
}

// validateTests reports what the tests alone show. The map holds the first test
// of every name and grows.
func validateTests(tests []Test, f access.Faults, first map[string]*Test) {
	for i := range tests {
		t, at := &tests[i], f.At("tests[%d]", i)
		t.Validate(at)
		if t.Name == "" {
			continue
		}
		if other := first[t.Name]; other != nil {
			where := "another test"
			if other.file != "" {
				where += " in " + filepath.Base(other.file)
			}
			at.At("name").Add("choose another name", "%q is the name of %s", t.Name, where)
			continue
		}
		first[t.Name] = t
	}
}

// placeTests tells the tests of a file where they stand.
func placeTests(tests []Test, file string, where positions) {
	for i := range tests {
		at := where.find(fmt.Sprintf("tests[%d]", i))
		tests[i].file, tests[i].line, tests[i].column = file, at.line, at.column
	}
}
