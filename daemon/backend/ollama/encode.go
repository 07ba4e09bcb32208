package ollama

import (
	"encoding/json"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/job"
)

// encode returns the path and body that ask Ollama for j, and to keep the model
// no longer than it may be.
func encode(j job.Job) (path string, body []byte, err error) {
	if j.Original != nil {
		path, body, err = original(j)
	} else {
		path, body, err = translated(j)
	}
	if err == nil && j.KeepAlive != nil {
		body, err = job.SetKeepAlive(body, *j.KeepAlive)
	}
	return path, body, err
}

// translated puts a job's content into Ollama's words.
func translated(j job.Job) (path string, body []byte, err error) {
	var request any
	switch j.Kind {
	case job.Generate:
		path = "/api/generate"
		request = &api.GenerateRequest{
			Model: j.Model, Prompt: j.Content.Prompt, System: j.Content.System,
			Stream: &j.Stream, Options: options(j),
		}
	case job.Chat:
		path = "/api/chat"
		request = &api.ChatRequest{Model: j.Model, Messages: messages(j.Content), Stream: &j.Stream, Options: options(j)}
	case job.Embed:
		path = "/api/embed"
		request = &api.EmbedRequest{Model: j.Model, Input: j.Content.Input, Options: options(j)}
	default:
		return "", nil, job.Errorf(job.Invalid, "Ollama has no jobs of kind %q", j.Kind)
	}
	body, err = json.Marshal(request)
	return path, body, err
}

// original returns a request of Ollama's dialect as it came, but for a model
// that was chosen for it.
func original(j job.Job) (path string, body []byte, err error) {
	o := j.Original
	if o.Dialect != job.Ollama {
		return "", nil, job.Errorf(job.Invalid, "Ollama does not speak the dialect %q", o.Dialect)
	}
	if !j.Chosen {
		return o.Path, o.Body, nil
	}
	body, err = job.SetModel(o.Body, j.Model)
	return o.Path, body, err
}

func messages(c job.Content) []api.Message {
	var list []api.Message
	if c.System != "" {
		list = append(list, api.Message{Role: "system", Content: c.System})
	}
	for _, m := range c.Messages {
		list = append(list, api.Message{Role: m.Role, Content: m.Content})
	}
	return list
}

// options returns the sampling in Ollama's words. What is left out is left to
// the model.
func options(j job.Job) map[string]any {
	o := make(map[string]any)
	s := j.Content.Sampling
	if j.MaxTokens > 0 {
		o["num_predict"] = j.MaxTokens
	}
	set(o, "temperature", s.Temperature)
	set(o, "top_p", s.TopP)
	set(o, "top_k", s.TopK)
	set(o, "num_ctx", s.ContextLength)
	if len(s.Stop) > 0 {
		o["stop"] = s.Stop
	}
	return o
}

func set[T any](o map[string]any, key string, value *T) {
	if value != nil {
		o[key] = *value
	}
}
