package wire

// Generate asks for the continuation of a prompt. The options are named as the
// fields of compute.v1's JobAnnotations and GenerationOptions; model, system,
// class and deadline_ms are options too.
type Generate struct {
	Prompt  string         `json:"prompt"`
	Options map[string]any `json:"options,omitempty"`
}

// Chat asks for the next turn of a conversation.
type Chat struct {
	Messages []Message      `json:"messages"`
	Options  map[string]any `json:"options,omitempty"`
}

// Message is one turn. Role is "system", "user", "assistant" or "tool".
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Event is one line of an answer; one of its members is set. A stream is
// complete if its last line is End or Error.
type Event struct {
	// Routed says where the job goes, and comes again on a fallback: the
	// fields of a decision.
	Routed map[string]any `json:"routed,omitempty"`
	// Text is the next piece of the answer.
	Text string `json:"text,omitempty"`
	// Pull says how the model is getting on which is fetched.
	Pull *Pull `json:"pull,omitempty"`
	// End says what the job took: the fields of a report, which are described
	// in dbus/io.github.joulemux.Inference1.xml. What its devices take after
	// the last token is in EnergyJob some seconds later.
	End map[string]any `json:"end,omitempty"`
	// Error says why there is no more.
	Error *Error `json:"error,omitempty"`
}

// Cache is the answers that are kept to be given again, in memory alone.
type Cache struct {
	Entries  int `json:"entries"`
	Bytes    int `json:"bytes"`
	MaxBytes int `json:"max_bytes"` // 0 if nothing is kept
	// Shared tells that clients get the answers to each other's requests.
	Shared bool `json:"shared"`
	// Hits are the jobs that were answered from here since the daemon was started,
	// Joined those that followed another which asked for the same at that time,
	// and Misses those that had to be run although they might have been neither.
	Hits   int64 `json:"hits"`
	Joined int64 `json:"joined"`
	Misses int64 `json:"misses"`
	// Evictions are the answers that made room for others, and Expiries those that
	// nobody asked for any more.
	Evictions int64 `json:"evictions"`
	Expiries  int64 `json:"expiries"`
}
