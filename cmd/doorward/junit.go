package main

import (
	"encoding/xml"
	"os"
	"strconv"
	"strings"
)

// The JUnit report, as far as continuous integration reads it.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Line    string        `xml:"line,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

func writeJUnit(path string, r *testReport) error {
	suite := junitSuite{Name: r.Config, Tests: len(r.Tests), Failures: r.Failed}
	for i := range r.Tests {
		t := &r.Tests[i]
		one := junitCase{Name: t.Name, Class: r.Config, File: t.File, Line: strconv.Itoa(t.Line)}
		if !t.Passed {
			one.Failure = &junitFailure{Message: strings.Join(t.Wrong, "; "), Text: strings.Join(t.lines(), "\n")}
		}
		suite.Cases = append(suite.Cases, one)
	}
	text, err := xml.MarshalIndent(suite, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte(xml.Header), append(text, '\n')...), 0o644)
}
