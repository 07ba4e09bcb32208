package openai

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Kind is which program a server is.
type Kind string

// The kinds. Plain is any other, of which nothing is known but the API.
const (
	LlamaServer Kind = "llama-server"
	VLLM        Kind = "vllm"
	OVMS        Kind = "ovms" // OpenVINO Model Server
	Lemonade    Kind = "lemonade"
	Plain       Kind = "openai"
)

// owners are how servers of a kind sign their listings.
var owners = map[string]Kind{"llamacpp": LlamaServer, "vllm": VLLM, "ovms": OVMS, "lemonade": Lemonade}

// beyond is what servers of a kind understand beyond OpenAI's API.
func (k Kind) beyond() dialect.Server {
	switch k {
	case LlamaServer:
		return dialect.Server{Templated: true, Thoughts: "reasoning_content", Options: map[string]string{
			"top_k": "top_k", "min_p": "min_p", "typical_p": "typical_p", "repeat_penalty": "repeat_penalty",
			"repeat_last_n": "repeat_last_n", "num_keep": "n_keep",
		}}
	case VLLM:
		return dialect.Server{Templated: true, Bounded: true, Stops: true, Options: map[string]string{
			"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty",
		}}
	case OVMS:
		return dialect.Server{Templated: true, Options: map[string]string{"top_k": "top_k", "repeat_penalty": "repetition_penalty"}}
	case Lemonade:
		return dialect.Server{Options: map[string]string{"top_k": "top_k", "repeat_penalty": "repeat_penalty"}}
	case Plain:
	}
	return dialect.Server{Infill: true, Bounded: true}
}

// knowsLimit reports whether all servers of a kind take max_completion_tokens.
// vLLM does since vllm-project/vllm#9837 of 2024, and refused it before. But a
// llama-server from before ggml-org/llama.cpp#19831, of February 2026, leaves it
// out, as does one that a Lemonade from before lemonade-sdk/lemonade#1044 asks.
func (k Kind) knowsLimit() bool { return k == VLLM || k == OVMS }

// findings are what is known of a server. They are not changed once made.
type findings struct {
	kind   Kind
	prefix string
	router bool // a llama-server with several models, which it loads and unloads
	facts  job.Facts
}

// alive is where something small is to be had, whatever the server is doing.
func (f *findings) alive() string {
	if f.kind == LlamaServer {
		return "/health"
	}
	return f.prefix + "/models"
}

// model returns the model of that name, in any spelling, or nil.
func (f *findings) model(name string) *job.Model {
	for i := range f.facts.Models {
		if job.SameModel(f.facts.Models[i].Name, name) {
			return &f.facts.Models[i]
		}
	}
	return nil
}

// id returns what the server calls a model, which takes one spelling alone.
func (f *findings) id(name string) string {
	if m := f.model(name); m != nil {
		return m.Name
	}
	return name
}

// server returns what the server understands in a job for a model.
func (f *findings) server(model string) dialect.Server {
	s := f.kind.beyond()
	if m := f.model(model); m != nil {
		s.Context = m.ContextLength
	}
	return s
}

// listed is a model in a listing, with what some servers say beyond its name.
type listed struct {
	ID    string `json:"id"`
	Owner string `json:"owned_by"`
	// Created is in seconds since 1970. Not all servers have whole ones.
	Created float64 `json:"created"`
	// Context is vLLM's.
	Context int `json:"max_model_len"`
	// Downloaded is Lemonade's, which lists what could be had, too.
	Downloaded *bool `json:"downloaded"`
	// The others are llama-server's.
	Meta struct {
		Size    int64 `json:"size"`
		Context int   `json:"n_ctx"`
		Trained int   `json:"n_ctx_train"`
		Count   int64 `json:"n_params"`
	} `json:"meta"`
	// Labels are Lemonade's.
	Labels []string `json:"labels"`
	Status struct {
		Value string `json:"value"`
	} `json:"status"`
}

// Probe asks the server what it is and what models it has. None of the requests
// has a model loaded.
func (s *Server) Probe(ctx context.Context) (job.Facts, error) {
	f := &findings{kind: s.kind}
	var list struct {
		Data []listed `json:"data"`
	}
	header, err := s.list(ctx, f, &list)
	if err != nil {
		return job.Facts{}, err
	}
	f.facts = job.Facts{Version: dialect.OllamaVersion, Instance: header.Get(endpoint.InstanceHeader), Lacks: []string{"keep_alive", "pull", "unload"}}
	if f.facts.Instance != "" {
		return f.facts, nil
	}
	if f.kind == "" {
		f.kind = kindOf(list.Data, header)
	}
	f.facts.Server = string(f.kind)
	for _, m := range list.Data {
		if m.ID != "" && (m.Downloaded == nil || *m.Downloaded) {
			f.facts.Models = append(f.facts.Models, s.modelOf(f, m))
		}
	}
	if err := s.ask(ctx, f); err != nil {
		return job.Facts{}, err
	}
	if before := s.known.Swap(f); before != nil && before.kind != f.kind {
		s.oneLimit.Store(false) // another server has come in its place
	}
	return f.facts, nil
}

// list gets the listing of models, and finds out where the API is.
func (s *Server) list(ctx context.Context, f *findings, into any) (header http.Header, err error) {
	prefixes := []string{"/v1", "/v3"}
	if before := s.known.Load(); before != nil && before.prefix == "/v3" {
		prefixes = []string{"/v3", "/v1"}
	}
	if s.prefix != "" {
		prefixes = []string{s.prefix}
	}
	for _, f.prefix = range prefixes {
		header, err = s.Get(ctx, f.prefix+"/models", into)
		var status *endpoint.StatusError
		if err == nil || !errors.As(err, &status) {
			return header, err
		}
	}
	return header, err
}

// kindOf tells the kind of a server by its listing, or by how it calls itself.
func kindOf(models []listed, header http.Header) Kind {
	for _, m := range models {
		if kind, ok := owners[strings.ToLower(m.Owner)]; ok {
			return kind
		}
		if m.Downloaded != nil {
			return Lemonade
		}
	}
	if strings.HasPrefix(header.Get("Server"), "llama.cpp") {
		return LlamaServer
	}
	return Plain
}

// modelOf is what a listing says of a model. A server that does not say what is
// in memory has all of it there.
func (s *Server) modelOf(f *findings, m listed) job.Model {
	f.router = f.router || m.Status.Value != ""
	// Which weights these are nobody can tell: a name is not one, and quantised
	// otherwise they give other vectors. So they are like no other server's.
	digest := sha256.Sum256([]byte(s.address + "\x00" + m.ID))
	return job.Model{
		Name: m.ID, Digest: hex.EncodeToString(digest[:]), Assumed: true, Size: max(0, m.Meta.Size), VRAM: -1,
		ContextLength: max(0, m.Context, m.Meta.Context),
		Resident:      m.Status.Value == "" || m.Status.Value == "loaded",
		Created:       m.since(), Owner: m.Owner, Description: m.description(),
	}
}

// since is when the model was made, or came there; zero if that is not told.
func (m *listed) since() time.Time {
	if m.Created < 1 || m.Created > 1e11 {
		return time.Time{}
	}
	return time.Unix(int64(m.Created), 0)
}

// abilities are Lemonade's words for what Ollama calls otherwise.
var abilities = map[string]string{"vision": "vision", "reasoning": "thinking", "tool-calling": "tools", "embeddings": "embedding"}

// description is what some servers say of what a model is.
func (m listed) description() job.Description {
	d := job.Description{Context: max(0, m.Context, m.Meta.Trained)}
	if m.Meta.Count > 0 {
		d.Parameters = fmt.Sprintf("%.2fM", float64(m.Meta.Count)/1e6)
		if m.Meta.Count >= 1e9 {
			d.Parameters = fmt.Sprintf("%.1fB", float64(m.Meta.Count)/1e9)
		}
	}
	for _, label := range m.Labels {
		if a := abilities[label]; a != "" {
			d.Abilities = append(d.Abilities, a)
		}
	}
	return d
}

// ask asks what only servers of this kind tell. They need not: a proxy in between
// may let through no more than the API.
func (s *Server) ask(ctx context.Context, f *findings) error {
	var err error
	switch f.kind {
	case LlamaServer:
		err = s.askLlama(ctx, f)
	case VLLM:
		var v struct{ Version string }
		_, err = s.Get(ctx, "/version", &v)
		f.called(v.Version)
	case Lemonade:
		err = s.askLemonade(ctx, f)
	case OVMS, Plain:
	}
	var status *endpoint.StatusError
	if errors.As(err, &status) && status.Code == http.StatusServiceUnavailable {
		return fmt.Errorf("%w: it is loading a model", err)
	}
	return ctx.Err()
}

// called adds a version to the server's name.
func (f *findings) called(version string) {
	if version != "" {
		f.facts.Server += " " + version
	}
}

// askLlama asks a llama-server for its slots and the context that each has.
func (s *Server) askLlama(ctx context.Context, f *findings) error {
	f.able(f.router)
	var p struct {
		Slots    int    `json:"total_slots"`
		Build    string `json:"build_info"`
		Settings struct {
			Context int `json:"n_ctx"`
		} `json:"default_generation_settings"`
		Asleep bool `json:"is_sleeping"`
	}
	if _, err := s.Get(ctx, "/props", &p); err != nil {
		return err
	}
	f.called(p.Build)
	if f.router { // what it says is of itself, and not of a model's server
		return nil
	}
	f.facts.Slots = min(max(0, p.Slots), mostSlots)
	for i := range f.facts.Models {
		m := &f.facts.Models[i]
		m.Resident = !p.Asleep
		if p.Settings.Context > 0 {
			m.ContextLength = p.Settings.Context
		}
	}
	return nil
}

// mostSlots is far more than any server on one machine has.
const mostSlots = 1024

// able notes that the server can be told to let go of a model, if it can.
func (f *findings) able(unload bool) {
	if unload {
		f.facts.Lacks = slices.DeleteFunc(f.facts.Lacks, func(l string) bool { return l == "unload" })
	}
}

// askLemonade asks a Lemonade what it has loaded, and on which device.
func (s *Server) askLemonade(ctx context.Context, f *findings) error {
	f.able(true)
	var h struct {
		Version string
		Loaded  []struct {
			Name    string `json:"model_name"`
			Device  string `json:"device"`
			Options struct {
				Context int `json:"ctx_size"`
			} `json:"recipe_options"`
		} `json:"all_models_loaded"`
	}
	if _, err := s.Get(ctx, f.prefix+"/health", &h); err != nil {
		return err
	}
	f.called(h.Version)
	for i := range f.facts.Models {
		m := &f.facts.Models[i]
		m.Resident = false
		for _, l := range h.Loaded {
			if l.Name == m.Name {
				m.Resident, m.ContextLength = true, max(0, l.Options.Context)
			}
		}
	}
	devices := make(map[power.DeviceClass]bool)
	for _, l := range h.Loaded {
		devices[deviceOf(l.Device)] = true
	}
	for class := range devices {
		if len(devices) == 1 && class != power.Unclassified { // else it is on several
			f.facts.Device = class
		}
	}
	return nil
}

// deviceOf returns the class that Lemonade's word for a device names. Which of
// the GPUs "gpu" is it does not say.
func deviceOf(word string) power.DeviceClass {
	switch {
	case strings.Contains(word, "npu"):
		return power.NPU
	case word == "cpu":
		return power.CPU
	default:
		return power.Unclassified
	}
}
