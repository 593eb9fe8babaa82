/**
 * gRPC server reflection, versions v1 and v1alpha: lets `buf curl`, grpcurl and their like list and call the services
 * without having the .proto files.
 *
 * Written by hand on the descriptors that the generated code holds anyway. A question for a file is answered with the file
 * and everything it imports, imports last, so that a client needs to ask once. Symbols are found at every level: packages'
 * services and messages, nested messages (the entries of maps too), fields, oneofs, enum values, methods, extensions.
 *
 * Traps: the index is made from the raw descriptors, as protobuf-es' own view of them leaves out the entries of maps.
 * Both versions have the same messages under other names, hence {@link answer} works on plain shapes and each version has
 * its own thin service. Generated descriptors hold no comments, so clients do not see any.
 */
import { toBinary } from "@bufbuild/protobuf"
import type { DescFile, DescService } from "@bufbuild/protobuf"
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt"
import type { DescriptorProto, EnumDescriptorProto, FieldDescriptorProto } from "@bufbuild/protobuf/wkt"
import { status as Code } from "@grpc/grpc-js"
import * as Stream from "effect/Stream"
import { file_google_rpc_error_details } from "../../proto/generated/google/rpc/error_details_pb.ts"
import { ServerReflection } from "../../proto/generated/grpc/reflection/v1/reflection_pb.ts"
import { ServerReflection as ServerReflectionAlpha } from "../../proto/generated/grpc/reflection/v1alpha/reflection_pb.ts"
import { bidiStreaming, service } from "./EffectGrpc.ts"
import type { Service } from "./EffectGrpc.ts"

/** What reflection knows, indexed once: files by name, the declaring file of every symbol, the names of the services. */
export interface Index {
  readonly services: ReadonlyArray<string>
  readonly files: ReadonlyMap<string, DescFile>
  readonly symbols: ReadonlyMap<string, DescFile>
  /** Extended message → number of the extension → the file that declares it. */
  readonly extensions: ReadonlyMap<string, ReadonlyMap<number, DescFile>>
}

/** Fully qualified names begin with a dot in descriptors, and without in most questions. */
const withoutDot = (name: string): string => name.replace(/^\./, "")

/** Everything that the services and what they import declare, and what errors carry: no service imports that. */
export const makeIndex = (services: ReadonlyArray<DescService>): Index => {
  const files = new Map<string, DescFile>()
  const symbols = new Map<string, DescFile>()
  const extensions = new Map<string, Map<number, DescFile>>()

  const addAll = (file: DescFile, scope: string, declared: ReadonlyArray<{ readonly name: string }>): void => {
    for (const { name } of declared) symbols.set(scope + name, file)
  }
  const addEnums = (file: DescFile, scope: string, enums: ReadonlyArray<EnumDescriptorProto>): void => {
    addAll(file, scope, enums)
    // A value is a sibling of its enum, as in C++.
    for (const { value } of enums) addAll(file, scope, value)
  }
  const addMessages = (file: DescFile, scope: string, messages: ReadonlyArray<DescriptorProto>): void => {
    addAll(file, scope, messages)
    for (const message of messages) {
      const inside = `${scope}${message.name}.`
      addAll(file, inside, message.field)
      addAll(file, inside, message.oneofDecl)
      addEnums(file, inside, message.enumType)
      addMessages(file, inside, message.nestedType)
      addExtensions(file, inside, message.extension)
    }
  }
  const addExtensions = (file: DescFile, scope: string, declared: ReadonlyArray<FieldDescriptorProto>): void => {
    addAll(file, scope, declared)
    for (const { extendee, number } of declared) {
      const type = withoutDot(extendee)
      extensions.set(type, (extensions.get(type) ?? new Map<number, DescFile>()).set(number, file))
    }
  }
  const addFile = (file: DescFile): void => {
    const { enumType, extension, messageType, name, package: packageName, service: declared } = file.proto
    if (files.has(name)) return
    files.set(name, file)
    const scope = packageName === "" ? "" : `${packageName}.`
    addMessages(file, scope, messageType)
    addEnums(file, scope, enumType)
    addExtensions(file, scope, extension)
    addAll(file, scope, declared)
    for (const { method, name: serviceName } of declared) addAll(file, `${scope}${serviceName}.`, method)
    for (const dependency of file.dependencies) addFile(dependency)
  }
  for (const { file } of services) addFile(file)
  addFile(file_google_rpc_error_details)
  return { services: services.map(({ typeName }) => typeName).sort(), files, symbols, extensions }
}

/** A question, in the shape that both versions share. */
export type Question =
  | { readonly case: "fileByFilename"; readonly value: string }
  | { readonly case: "fileContainingSymbol"; readonly value: string }
  | {
      readonly case: "fileContainingExtension"
      readonly value: { readonly containingType: string; readonly extensionNumber: number }
    }
  | { readonly case: "allExtensionNumbersOfType"; readonly value: string }
  | { readonly case: "listServices"; readonly value: string }
  | { readonly case: undefined; readonly value?: undefined }

/** An answer, in the shape that both versions share. */
export type Answer =
  | { readonly case: "fileDescriptorResponse"; readonly value: { readonly fileDescriptorProto: Array<Uint8Array> } }
  | {
      readonly case: "allExtensionNumbersResponse"
      readonly value: { readonly baseTypeName: string; readonly extensionNumber: Array<number> }
    }
  | { readonly case: "listServicesResponse"; readonly value: { readonly service: Array<{ readonly name: string }> } }
  | { readonly case: "errorResponse"; readonly value: { readonly errorCode: number; readonly errorMessage: string } }

const notFound = (what: string): Answer => ({
  case: "errorResponse",
  value: { errorCode: Code.NOT_FOUND, errorMessage: `${what} not found` }
})

/** A file and all it imports, directly and indirectly, each once. */
const withImports = (file: DescFile): Answer => {
  const closure = new Set<DescFile>()
  const visit = (next: DescFile): void => {
    if (closure.has(next)) return
    closure.add(next)
    next.dependencies.forEach(visit)
  }
  visit(file)
  return {
    case: "fileDescriptorResponse",
    value: { fileDescriptorProto: Array.from(closure, ({ proto }) => toBinary(FileDescriptorProtoSchema, proto)) }
  }
}

/** Answers one question. */
export const answer = (index: Index, question: Question): Answer => {
  switch (question.case) {
    case "fileByFilename": {
      const file = index.files.get(question.value)
      return file === undefined ? notFound(`file ${question.value}`) : withImports(file)
    }
    case "fileContainingSymbol": {
      const file = index.symbols.get(withoutDot(question.value))
      return file === undefined ? notFound(`symbol ${question.value}`) : withImports(file)
    }
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = question.value
      const file = index.extensions.get(withoutDot(containingType))?.get(extensionNumber)
      return file === undefined ? notFound(`extension ${extensionNumber} of ${containingType}`) : withImports(file)
    }
    case "allExtensionNumbersOfType": {
      const type = withoutDot(question.value)
      if (!index.symbols.has(type)) return notFound(`type ${question.value}`)
      const extensionNumber = Array.from(index.extensions.get(type)?.keys() ?? [])
      return { case: "allExtensionNumbersResponse", value: { baseTypeName: type, extensionNumber } }
    }
    case "listServices":
      return { case: "listServicesResponse", value: { service: index.services.map((name) => ({ name })) } }
    default:
      question.case satisfies undefined
      return {
        case: "errorResponse",
        value: { errorCode: Code.INVALID_ARGUMENT, errorMessage: "the request asks nothing: set message_request" }
      }
  }
}

/** Both versions of the reflection service, telling of `services` and of themselves. */
export const reflection = (
  services: ReadonlyArray<DescService>
): readonly [Service<never, never>, Service<never, never>] => {
  const index = makeIndex([...services, ServerReflection, ServerReflectionAlpha])
  return [
    service(ServerReflection, {
      serverReflectionInfo: bidiStreaming(ServerReflection.method.serverReflectionInfo, (requests) =>
        Stream.map(requests, (request) => ({
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(index, request.messageRequest)
        }))
      )
    }),
    service(ServerReflectionAlpha, {
      serverReflectionInfo: bidiStreaming(ServerReflectionAlpha.method.serverReflectionInfo, (requests) =>
        Stream.map(requests, (request) => ({
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(index, request.messageRequest)
        }))
      )
    })
  ]
}
