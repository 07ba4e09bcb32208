package dbus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
)

// newJob returns a job of a caller's with that content and those options.
func (f *FrontEnd) newJob(ctx context.Context, c bus.Call, kind job.Kind, content job.Content, options map[string]godbus.Variant) (job.Job, error) {
	j := job.Job{Kind: kind, Content: content, Stream: kind != job.Embed, Arrived: time.Now()}
	if pid, err := c.PID(ctx); err == nil { // else it has just left
		j.Client = f.Program(pid) // of a Flatpak that is the proxy by which it comes, of all of them
		j.Vouched = j.Client != ""
	}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if err := j.Set(key, plain(options[key])); err != nil {
			return j, err
		}
	}
	j.PromptBytes, j.Prompt = j.Content.Bytes(), j.Content.Fingerprint()
	return j, nil
}

// without returns the options without one that is not the job's, and what that one
// says, or nil if it is not there.
func without(options map[string]godbus.Variant, key string) (word *string, rest map[string]godbus.Variant, err error) {
	v, ok := options[key]
	if !ok {
		return nil, options, nil
	}
	s, ok := plain(v).(string)
	if !ok {
		return nil, nil, job.InvalidField(key, "want a string (s), got %s", v.Signature())
	}
	rest = maps.Clone(options)
	delete(rest, key)
	return &s, rest, nil
}

// plain returns a value of the bus without the variants around and in it.
func plain(v any) any {
	switch v := v.(type) {
	case godbus.Variant:
		return plain(v.Value())
	case []godbus.Variant:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = plain(e)
		}
		return list
	case map[string]godbus.Variant:
		all := make(map[string]any, len(v))
		for key, e := range v {
			all[key] = plain(e)
		}
		return all
	default:
		return v
	}
}

// conversation returns messages of the bus as those of a job.
func conversation(messages []map[string]godbus.Variant) ([]job.Message, error) {
	all := make([]job.Message, len(messages))
	for i, m := range messages {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if key != "role" && key != "content" {
				return nil, job.InvalidField(fmt.Sprintf("messages[%d].%s", i, key), "a message has role and content alone")
			}
		}
		var err error
		if all[i].Role, err = part(m, i, "role"); err != nil {
			return nil, err
		}
		if all[i].Content, err = part(m, i, "content"); err != nil {
			return nil, err
		}
	}
	return all, job.CheckMessages(all)
}

// part returns one part of message i.
func part(m map[string]godbus.Variant, i int, key string) (string, error) {
	v, ok := m[key]
	if !ok {
		return "", job.InvalidField(fmt.Sprintf("messages[%d].%s", i, key), "is missing")
	}
	s, ok := plain(v).(string)
	if !ok {
		return "", job.InvalidField(fmt.Sprintf("messages[%d].%s", i, key), "want a string (s), got %s", v.Signature())
	}
	return s, nil
}
