package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// columns are those of a trace in CSV, as its first line has them.
func columns() []string { return []string{"time", "prompt_tokens", "output_tokens", "class"} }

// LineError is what is wrong with a line of a trace. Lines count from 1, and
// the first one has the names of the columns.
type LineError struct {
	Line   int
	Column string // or "", if it is about the whole line
	Detail string
}

// Error implements error.
func (e *LineError) Error() string {
	if e.Column == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Detail)
	}
	return fmt.Sprintf("line %d: %s: %s", e.Line, e.Column, e.Detail)
}

const (
	// most is how many requests a trace may have, longest how long it may be,
	// and largest how many tokens a request may have.
	most    = 1_000_000
	longest = 31 * 24 * time.Hour
	largest = 1_000_000
)

// ReadCSV reads requests in order of time from lines of time,prompt_tokens,
// output_tokens,class, where time is in seconds from the begin. An error about
// what is written there is a *LineError.
func ReadCSV(from io.Reader) ([]Request, error) {
	r := csv.NewReader(from)
	r.FieldsPerRecord = len(columns())
	r.TrimLeadingSpace = true
	header, err := r.Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, &LineError{1, "", "there is none: want " + strings.Join(columns(), ",")}
	case err != nil:
		return nil, lineError(err)
	case !slices.Equal(header, columns()):
		return nil, &LineError{1, "", "want " + strings.Join(columns(), ",")}
	}
	var list []Request
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, lineError(err)
		}
		line, _ := r.FieldPos(0)
		next, err := parseRequest(line, record)
		if err != nil {
			return nil, err
		}
		if n := len(list); n > 0 && next.At < list[n-1].At {
			return nil, &LineError{line, "time", "before that of the line above"}
		}
		if list = append(list, next); len(list) > most {
			return nil, &LineError{line, "", fmt.Sprintf("a trace has at most %d requests", most)}
		}
	}
}

// lineError puts what package csv says into our words. What is no fault of the
// text stays as it is.
func lineError(err error) error {
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return fmt.Errorf("read a trace: %w", err)
	}
	return &LineError{parse.Line, "", parse.Err.Error()}
}

// parseRequest reads a line.
func parseRequest(line int, record []string) (Request, error) {
	at, err := strconv.ParseFloat(record[0], 64)
	if err != nil || !(at >= 0 && at <= longest.Seconds()) {
		return Request{}, &LineError{line, "time", fmt.Sprintf("want seconds from 0 to %.0f, got %q", longest.Seconds(), short(record[0]))}
	}
	r := Request{At: seconds(at), Class: Class(record[3]), Client: "trace"}
	for i, to := range []*int{&r.Prompt, &r.Output} {
		n, err := strconv.Atoi(record[1+i])
		if err != nil || n < 0 || n > largest {
			return Request{}, &LineError{line, columns()[1+i], fmt.Sprintf("want a number from 0 to %d, got %q", largest, short(record[1+i]))}
		}
		*to = n
	}
	if !slices.Contains([]Class{Interactive, Completion, Background}, r.Class) {
		return Request{}, &LineError{line, "class", fmt.Sprintf("want %s, %s or %s, got %q", Interactive, Completion, Background, short(record[3]))}
	}
	return r, nil
}

// short is enough of what was written to know it again.
func short(s string) string {
	const most = 32
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
