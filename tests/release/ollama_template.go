// Renders a template as Ollama would, from standard input: {"template", "cases"} to a list of texts.
// Ollama itself is not needed: it uses Go's text/template with the function json and data of these shapes.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Function struct {
	Name      string         `json:"name"`
	Arguments map[string]any `json:"arguments"`
}

type Call struct{ Function Function }

type Message struct {
	Role, Content, Thinking string
	ToolCalls               []Call
}

type Property struct {
	Type        string `json:"type,omitempty"`
	Description string `json:"description,omitempty"`
}

type Parameters struct {
	Type       string              `json:"type"`
	Required   []string            `json:"required,omitempty"`
	Properties map[string]Property `json:"properties"`
}

type ToolFunction struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Parameters  Parameters `json:"parameters"`
}

type Tool struct{ Function ToolFunction }

type Case struct {
	System            string
	Messages          []Message
	Tools             []Tool
	Think, IsThinkSet bool
}

type Task struct {
	Template string
	Cases    []Case
}

func fail(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	var task Task
	fail(json.NewDecoder(os.Stdin).Decode(&task))
	functions := template.FuncMap{"json": func(v any) string {
		text, _ := json.Marshal(v)
		return string(text)
	}}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(task.Template)
	fail(err)
	texts := []string{}
	for _, one := range task.Cases {
		var out strings.Builder
		fail(parsed.Execute(&out, one))
		texts = append(texts, out.String())
	}
	fail(json.NewEncoder(os.Stdout).Encode(texts))
}
