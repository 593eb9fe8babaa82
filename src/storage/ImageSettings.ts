/** What the store keeps of images and what it takes: limits of layers, and when unused images go by themselves. */
import type { LayerLimits } from "./LayerFilter.ts"

export interface CollectionSettings {
  /** Images unused for so many days go; undefined: age alone is no reason. */
  readonly unusedDays?: number
  /** Fuller than this, unused images go; undefined: however full it is, none does. */
  readonly highPercent?: number
  /** Until the disk is no fuller than this; undefined: 10 less than the other. */
  readonly lowPercent?: number
}

export interface ImageSettings {
  readonly limits: Partial<LayerLimits>
  readonly collection: CollectionSettings
}

/** Nothing goes by itself: a person's images are a person's business, until a config says otherwise. */
export const usualImageSettings: ImageSettings = { limits: {}, collection: {} }
