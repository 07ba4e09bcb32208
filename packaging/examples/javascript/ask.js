#!/usr/bin/env node
// Asks joulemux with OpenAI's package, and prints the answer as it comes.
//
//     npm install
//     node ask.js "Why is the sky blue?"
//
// Any program for OpenAI's API will do: it needs another address, and a key that
// is never looked at.

import OpenAI from 'openai';

const client = new OpenAI({
    baseURL: process.env.OPENAI_BASE_URL ?? 'http://127.0.0.1:8080/v1',
    apiKey: process.env.OPENAI_API_KEY ?? 'none',
});

const [prompt, model = 'qwen2.5:0.5b'] = process.argv.slice(2);
if (!prompt) {
    console.error('usage: ask.js PROMPT [MODEL]');
    process.exit(2);
}

try {
    // What joulemux is told beside the question is in a member of its own.
    const {data: stream, response} = await client.chat.completions.create({
        model,
        messages: [{role: 'user', content: prompt}],
        max_tokens: 48,
        stream: true,
        joulemux: {prefer_power_efficiency: true},
    }).withResponse();
    let report;
    for await (const chunk of stream) {
        process.stdout.write(chunk.choices[0]?.delta?.content ?? '');
        report = chunk.joulemux ?? report;
    }
    console.error(`\n${response.headers.get('x-backend-used')}, ${response.headers.get('x-routing-reason')}`);
    if (report?.energy_joules !== undefined)
        console.error(`${report.energy_joules} J, ${report.energy_quality}`);
} catch (e) {
    console.error(`ask.js: ${e.message}`);
    process.exitCode = 1;
}
