package devicecheck

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// readCSV reads an inventory in the form of RFC 4180 with a header line that
// names the columns, in any order. Only `id` is required.
func readCSV(b *builder, data []byte) {
	// A record cut short can look like a whole one, so the last line has to end.
	if len(data) > 0 && data[len(data)-1] != '\n' {
		b.fault(1+bytes.Count(data, []byte("\n")), 1, "the last line is not complete (end it with a line break; rename complete files into place)")
		return
	}
	r := csv.NewReader(bytes.NewReader(data))
	r.ReuseRecord = true
	columns := readHeader(b, r)
	if columns == nil {
		return
	}
	for !b.enough() {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			csvFault(b, err)
			return
		}
		line, column := r.FieldPos(0)
		if b.full(line, column) {
			return
		}
		var d access.Device
		for n, value := range row {
			f := &fields[columns[n]]
			if err := setColumn(&d, f, value); err != nil {
				l, c := r.FieldPos(n)
				b.fault(l, c, "%s: %s", f.name, err)
			}
		}
		b.add(d, line, column)
	}
}

// readHeader returns, per column, the index of its field.
func readHeader(b *builder, r *csv.Reader) []int {
	row, err := r.Read()
	if errors.Is(err, io.EOF) {
		b.fault(1, 1, "the file is empty (begin with a header line, such as id,serial,compliant)")
		return nil
	}
	if err != nil {
		csvFault(b, err)
		return nil
	}
	columns := make([]int, 0, len(fields))
	for n, name := range row {
		line, column := r.FieldPos(n)
		f := fieldIndex(name)
		switch {
		case b.enough():
			return nil
		case f < 0:
			b.fault(line, column, "unknown column %q (the columns, separated by commas, are %s)", clip(name), fieldNames)
		case slices.Contains(columns, f):
			b.fault(line, column, "column %s is there twice (remove one of them)", name)
		}
		columns = append(columns, f)
	}
	if !slices.Contains(columns, fieldIndex("id")) {
		b.fault(1, 1, "the column id is missing (every device needs one)")
	}
	if len(b.faults) > 0 {
		return nil
	}
	return columns
}

func setColumn(d *access.Device, f *field, value string) error {
	if f.name != reasonsField {
		return f.apply(d, value)
	}
	if len(value) > maxField {
		return checkText(value)
	}
	for reason := range strings.SplitSeq(value, ";") {
		if err := addReason(d, reason); err != nil {
			return err
		}
	}
	return nil
}

func csvFault(b *builder, err error) {
	var syntax *csv.ParseError
	if !errors.As(err, &syntax) {
		b.fault(1, 1, "%s", err)
		return
	}
	cure := "put values with commas or quotes in double quotes, and double the quotes within"
	if errors.Is(err, csv.ErrFieldCount) {
		cure = "write one value per column, empty where it is unknown"
	}
	b.fault(syntax.Line, syntax.Column, "%s (%s)", syntax.Err, cure)
}
