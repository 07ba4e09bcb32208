package job

import (
	"bytes"
	"encoding/json"
)

// Line returns v as a line of JSON, of which answers are made on every wire.
// Text stays as it is, for people to read. What is written so are our own
// types, whose members can all be; should one not be, the line is an error.
func Line(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte(`{"error":"the answer cannot be encoded"}` + "\n")
	}
	return b.Bytes()
}
