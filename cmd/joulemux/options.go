package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// options are what a job asks for beside its text, by the names that they have
// on the wire. What is not in the command line is not in the request: the
// daemon knows the defaults.
type options map[string]any

// flags gives cmd a flag for each option.
func (o options) flags(cmd *cobra.Command) {
	o.add(cmd, "model", "model", name, "the model; without it the default one, or one that is loaded")
	o.add(cmd, "target", "target", name, "a backend's id, or npu, igpu, nvidia, dgpu, cpu, cloud")
	o.add(cmd, "system", "system", words, "what the model is told before all else")
	o.add(cmd, "class", "class", name, "who waits for it: interactive or background")
	o.add(cmd, "background", "class", always("background"), "the same as --class background")
	o.add(cmd, "latency-critical", "latency_critical", yesOrNo, "take the fastest backend, whatever it draws")
	o.add(cmd, "power-efficient", "prefer_power_efficiency", yesOrNo, "take the backend that spends the fewest joules")
	o.add(cmd, "preference", "preference", name, "a word of another system, such as low-power or PREFER_NPU")
	o.add(cmd, "max-latency", "max_latency_ms", duration, "how long the first token may take, as in 800ms")
	o.add(cmd, "max-power", "max_power_watts", watts, "what the backend may draw, as in 15W")
	o.add(cmd, "deadline", "deadline_ms", duration, "how long the whole answer may take, as in 30s")
	o.add(cmd, "cache", "cache_enabled", yesOrNo, "take an answer that was given before; --cache=false takes none")
	o.add(cmd, "max-tokens", "max_tokens", count, "how long the answer may be")
	o.add(cmd, "temperature", "temperature", number, "how freely tokens are chosen")
	o.add(cmd, "top-p", "top_p", number, "choose among the tokens of this share of all probability")
	o.add(cmd, "top-k", "top_k", count, "choose among so many tokens")
	o.add(cmd, "stop", "stop", words, "text at which the answer ends; may be given again")
	o.add(cmd, "context-length", "context_length", count, "how many tokens the model can see")
	_ = cmd.RegisterFlagCompletionFunc("class", // It fails only for a flag that is not there.
		cobra.FixedCompletions([]string{"interactive", "background"}, cobra.ShellCompDirectiveNoFileComp))
}

func (o options) add(cmd *cobra.Command, flag, key string, k kind, usage string) {
	f := cmd.Flags().VarPF(&option{all: o, key: key, kind: k}, flag, "", usage)
	f.NoOptDefVal = k.alone
}

// option is a flag for one of the options.
type option struct {
	all  options
	key  string
	kind kind
}

// Set is called for each time that the flag is given.
func (o *option) Set(text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("not valid UTF-8")
	}
	value, err := o.kind.parse(text)
	if err != nil {
		return err
	}
	if o.key == "stop" {
		list, _ := o.all[o.key].([]string)
		value = append(list, text)
	}
	o.all[o.key] = value
	return nil
}

// Type is what the help calls the flag's value.
func (o *option) Type() string { return o.kind.called }

// String is the default, for the help; there is none.
func (o *option) String() string { return "" }

// kind is a kind of values.
type kind struct {
	called string
	parse  func(string) (any, error)
	alone  string // what the flag means without a value, if it can be without
}

// The kinds. Whether a value makes sense is for the daemon to say.
var (
	name     = kind{called: "NAME", parse: asWritten}
	words    = kind{called: "TEXT", parse: asWritten}
	count    = kind{called: "N", parse: func(s string) (any, error) { return strconv.ParseInt(s, 10, 32) }}
	number   = kind{called: "X", parse: func(s string) (any, error) { return finite(s) }}
	watts    = kind{called: "WATTS", parse: func(s string) (any, error) { return finite(strings.TrimSuffix(s, "W")) }}
	duration = kind{called: "TIME", parse: milliseconds}
	yesOrNo  = kind{called: "bool", parse: func(s string) (any, error) { return strconv.ParseBool(s) }, alone: "true"}
)

func asWritten(s string) (any, error) { return s, nil }

// always is a flag that stands for a value of an option.
func always(value string) kind {
	return kind{called: "bool", alone: "true", parse: func(s string) (any, error) {
		if set, err := strconv.ParseBool(s); err != nil || !set {
			return nil, fmt.Errorf("it takes no value")
		}
		return value, nil
	}}
}

// finite leaves out what JSON cannot write.
func finite(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		err = fmt.Errorf("not a number")
	}
	return f, err
}

// milliseconds reads a duration of at least one: on the wire none means no
// limit.
func milliseconds(s string) (any, error) {
	d, err := time.ParseDuration(s)
	if err == nil && d < time.Millisecond {
		err = fmt.Errorf("less than 1ms")
	}
	return d.Milliseconds(), err
}
