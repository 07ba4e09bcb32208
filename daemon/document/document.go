// Package document reads YAML that people write, and tells them what is wrong with
// it: every fault at once, by its line and the path of keys that leads there.
//
// What the keys are is for the packages to say whose files those are.
package document

import (
	"bytes"
	"errors"
	"io"

	"go.yaml.in/yaml/v4"
)

// Read has read take what is in a text, unless that is nothing. The error is of
// type Faults: that it is no YAML, or what read found.
func Read(text []byte, read func(Section)) error {
	var document yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return Faults{{Text: "not YAML: " + err.Error()}}
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Faults{{Text: "more than one YAML document"}}
	}
	var faults Faults
	if len(document.Content) > 0 {
		read(Section{document.Content[0], "", &faults})
	}
	if len(faults) > 0 {
		return faults.sorted()
	}
	return nil
}
