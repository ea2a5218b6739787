"""What a client may send to the Live API: each message with its fields, each enum with its names, as tables.

They follow ``google/ai/generativelanguage/v1beta/generative_service.proto`` (BidiGenerateContentClientMessage
and what it reaches) and the Live API reference.
"""

from __future__ import annotations

from collections.abc import Mapping

ENUMS: Mapping[str, frozenset[str]] = {
    "GenerationConfig.Modality": frozenset({"MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO"}),
    "GenerationConfig.MediaResolution": frozenset(
        f"MEDIA_RESOLUTION_{level}" for level in ("UNSPECIFIED", "LOW", "MEDIUM", "HIGH")
    ),
    "ThinkingConfig.ThinkingLevel": frozenset(
        {"THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH"}
    ),
    "Type": frozenset(
        {"TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"}
    ),
    "FunctionDeclaration.Behavior": frozenset({"UNSPECIFIED", "BLOCKING", "NON_BLOCKING"}),
    "FunctionResponse.Scheduling": frozenset({"SCHEDULING_UNSPECIFIED", "SILENT", "WHEN_IDLE", "INTERRUPT"}),
    "RealtimeInputConfig.ActivityHandling": frozenset(
        {"ACTIVITY_HANDLING_UNSPECIFIED", "START_OF_ACTIVITY_INTERRUPTS", "NO_INTERRUPTION"}
    ),
    "RealtimeInputConfig.TurnCoverage": frozenset(
        {
            "TURN_COVERAGE_UNSPECIFIED",
            "TURN_INCLUDES_ONLY_ACTIVITY",
            "TURN_INCLUDES_ALL_INPUT",
            "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
        }
    ),
    "AutomaticActivityDetection.StartSensitivity": frozenset(
        f"START_SENSITIVITY_{level}" for level in ("UNSPECIFIED", "LOW", "HIGH")
    ),
    "AutomaticActivityDetection.EndSensitivity": frozenset(
        f"END_SENSITIVITY_{level}" for level in ("UNSPECIFIED", "LOW", "HIGH")
    ),
    "AudioTranscriptionConfig.Mode": frozenset({"MODE_UNSPECIFIED", "VERBATIM", "SMART"}),
}

# A field's type is a scalar ("str", "bytes", "bool", "int", "float", "duration", "struct", "any"), an enum or
# message named in these tables, "[x]" for a repeated x, or "{x}" for a map from string to x.
MESSAGES: Mapping[str, Mapping[str, str]] = {
    "BidiGenerateContentClientMessage": {
        "setup": "BidiGenerateContentSetup",
        "clientContent": "BidiGenerateContentClientContent",
        "realtimeInput": "BidiGenerateContentRealtimeInput",
        "toolResponse": "BidiGenerateContentToolResponse",
    },
    "BidiGenerateContentSetup": {
        "model": "str",
        "generationConfig": "GenerationConfig",
        "systemInstruction": "Content",
        "tools": "[Tool]",
        "realtimeInputConfig": "RealtimeInputConfig",
        "sessionResumption": "SessionResumptionConfig",
        "contextWindowCompression": "ContextWindowCompressionConfig",
        "inputAudioTranscription": "AudioTranscriptionConfig",
        "outputAudioTranscription": "AudioTranscriptionConfig",
        "historyConfig": "HistoryConfig",
        "avatarConfig": "struct",
        "proactivity": "ProactivityConfig",
    },
    "GenerationConfig": {
        "candidateCount": "int",
        "maxOutputTokens": "int",
        "temperature": "float",
        "topP": "float",
        "topK": "int",
        "presencePenalty": "float",
        "frequencyPenalty": "float",
        "seed": "int",
        "responseModalities": "[GenerationConfig.Modality]",
        "speechConfig": "SpeechConfig",
        "mediaResolution": "GenerationConfig.MediaResolution",
        "thinkingConfig": "ThinkingConfig",
        "translationConfig": "TranslationConfig",
        "enableAffectiveDialog": "bool",
        "responseMimeType": "str",
        "responseSchema": "Schema",
        "responseJsonSchema": "any",
        "responseLogprobs": "bool",
        "logprobs": "int",
        "stopSequences": "[str]",
    },
    "SpeechConfig": {
        "voiceConfig": "VoiceConfig",
        "languageCode": "str",
        "multiSpeakerVoiceConfig": "struct",
    },
    "VoiceConfig": {"prebuiltVoiceConfig": "PrebuiltVoiceConfig"},
    "PrebuiltVoiceConfig": {"voiceName": "str"},
    "ThinkingConfig": {
        "includeThoughts": "bool",
        "thinkingBudget": "int",
        "thinkingLevel": "ThinkingConfig.ThinkingLevel",
    },
    "TranslationConfig": {"targetLanguageCode": "str", "echoTargetLanguage": "bool"},
    "ProactivityConfig": {"proactiveAudio": "bool"},
    "HistoryConfig": {"initialHistoryInClientContent": "bool"},
    "SessionResumptionConfig": {"handle": "str"},
    "ContextWindowCompressionConfig": {"triggerTokens": "int", "slidingWindow": "SlidingWindow"},
    "SlidingWindow": {"targetTokens": "int"},
    "AudioTranscriptionConfig": {
        "languageCodes": "[str]",
        "customVocabulary": "[str]",
        "wordTimestamp": "bool",
        "diarization": "bool",
        "mode": "AudioTranscriptionConfig.Mode",
    },
    "RealtimeInputConfig": {
        "automaticActivityDetection": "AutomaticActivityDetection",
        "activityHandling": "RealtimeInputConfig.ActivityHandling",
        "turnCoverage": "RealtimeInputConfig.TurnCoverage",
    },
    "AutomaticActivityDetection": {
        "disabled": "bool",
        "startOfSpeechSensitivity": "AutomaticActivityDetection.StartSensitivity",
        "endOfSpeechSensitivity": "AutomaticActivityDetection.EndSensitivity",
        "prefixPaddingMs": "int",
        "silenceDurationMs": "int",
    },
    "Tool": {
        "functionDeclarations": "[FunctionDeclaration]",
        "googleSearch": "struct",
        "googleSearchRetrieval": "struct",
        "codeExecution": "struct",
        "urlContext": "struct",
        "computerUse": "struct",
    },
    "FunctionDeclaration": {
        "name": "str",
        "description": "str",
        "parameters": "Schema",
        "parametersJsonSchema": "any",
        "response": "Schema",
        "responseJsonSchema": "any",
        "behavior": "FunctionDeclaration.Behavior",
    },
    "Schema": {
        "type": "Type",
        "format": "str",
        "title": "str",
        "description": "str",
        "nullable": "bool",
        "enum": "[str]",
        "items": "Schema",
        "maxItems": "int",
        "minItems": "int",
        "properties": "{Schema}",
        "required": "[str]",
        "minProperties": "int",
        "maxProperties": "int",
        "minLength": "int",
        "maxLength": "int",
        "minimum": "float",
        "maximum": "float",
        "pattern": "str",
        "example": "any",
        "anyOf": "[Schema]",
        "propertyOrdering": "[str]",
        "default": "any",
    },
    "Content": {"parts": "[Part]", "role": "str"},
    "Part": {
        "text": "str",
        "thought": "bool",
        "thoughtSignature": "bytes",
        "inlineData": "Blob",
        "fileData": "struct",
        "functionCall": "struct",
        "functionResponse": "struct",
        "executableCode": "struct",
        "codeExecutionResult": "struct",
        "videoMetadata": "VideoMetadata",
    },
    "VideoMetadata": {"startOffset": "duration", "endOffset": "duration", "fps": "float"},
    "Blob": {"mimeType": "str", "data": "bytes"},
    "BidiGenerateContentClientContent": {"turns": "[Content]", "turnComplete": "bool"},
    "BidiGenerateContentRealtimeInput": {
        "mediaChunks": "[Blob]",
        "audio": "Blob",
        "video": "Blob",
        "text": "str",
        "audioStreamEnd": "bool",
        "activityStart": "Empty",
        "activityEnd": "Empty",
    },
    "Empty": {},
    "BidiGenerateContentToolResponse": {"functionResponses": "[FunctionResponse]"},
    "FunctionResponse": {
        "id": "str",
        "name": "str",
        "response": "struct",
        "parts": "[FunctionResponsePart]",
        "willContinue": "bool",
        "scheduling": "FunctionResponse.Scheduling",
    },
    "FunctionResponsePart": {"inlineData": "Blob"},
}

ONLY_V1ALPHA = frozenset(
    {("BidiGenerateContentSetup", "proactivity"), ("GenerationConfig", "enableAffectiveDialog")}
)
"""Fields that v1beta does not know."""
